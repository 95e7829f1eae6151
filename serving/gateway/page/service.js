/* The DOM, and the service over HTTP. Addresses are relative, so that the page works under a prefix. */

export const at = id => document.getElementById(id);

export function made(name, content = [], properties = {}) {
  const element = document.createElement(name);
  element.append(...[content].flat());
  const { className, data, ...rest } = properties;
  if (className) element.className = className;
  for (const [key, value] of Object.entries(rest)) key in element ? element[key] = value : element.setAttribute(key, value);
  return element;
}

export const base = new URL(".", document.baseURI).href;
export const limits = Object.fromEntries(Object.entries(document.body.dataset).map(([name, value]) => [name, Number(value)]));
export const key = { value: "" }; // kept in the page's memory only

export class Failure extends Error {
  constructor(message, status = 0, body = {}, waitSeconds = 0) {
    super(message);
    Object.assign(this, { status, body, waitSeconds });
  }
}

export const sentences = (...texts) => texts.filter(Boolean).map(text => /[.!?:]$/.test(text) ? text : `${text}.`).join(" ");

/* Ask the service. Returns [body, response]; throws Failure with a sentence for people. */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...(key.value ? { Authorization: `Bearer ${key.value}` } : {}) } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The service cannot be reached.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return [body, response];
  if (response.status === 401) {
    document.dispatchEvent(new Event("key-wanted"));
    throw new Failure(key.value ? "The service does not accept this API key." : "This service asks for an API key.", 401, body);
  }
  if (response.status === 403) throw new Failure(`This API key may not do that. ${body.detail || ""}`, 403, body);
  const text = sentences(body.detail || response.statusText || `The service answered ${response.status}.`, body.hint);
  throw new Failure(text, response.status, body, Number(response.headers.get("Retry-After") || 0));
}

const RETRIES = 4;

/* Ask again, after the time that the service names, while it is at a limit. */
export async function askPatiently(path, options) {
  for (let tried = 0; ; tried++) {
    try {
      return await ask(path, options);
    } catch (error) {
      if (!(error.waitSeconds && tried < RETRIES)) throw error;
      await new Promise(resolve => setTimeout(resolve, 1000 * Math.min(30, error.waitSeconds)));
    }
  }
}

/* Bring an element's top into view where it is not. */
export function bringIntoView(element) {
  const { top } = element.getBoundingClientRect();
  if (top >= 0 && top < innerHeight / 3) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}

export const working = text => made("span", [made("span", [], { className: "spinner" }), ` ${text}`]);
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
export const percent = share => `${(100 * share).toFixed(1)} %`;

/* Quote text for a POSIX shell. */
export const quoted = text => /^[\w.,:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;

/* The value of curl's -F for a file; a name with its separators is quoted. */
export const formFile = (field, name) =>
  quoted(`${field}=@${/[;,"\\]/.test(name) ? `"${name.replace(/[\\"]/g, found => `\\${found}`)}"` : name}`);

/* A button that copies what `text()` returns. */
export function copyButton(text, what) {
  const button = made("button", "Copy", { type: "button", className: "small", "aria-label": `Copy ${what}` });
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copying is not allowed";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  return button;
}

const PICTURE_NAMES = /\.(avif|bmp|dib|gif|hei[cf]|ico|j2k|jfif|jp2|jpe?g|jpx|p[bgnp]m|png|tiff?|webp)$/i; // browsers know no HEIC

export const isPicture = file => file.type.startsWith("image/") || PICTURE_NAMES.test(file.name);

/* The files of a drop; those of dropped folders, too. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(entry => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), found = [];
  for (;;) { // a reader returns at most 100 entries at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return (await Promise.all(found.map(filesOf))).flat();
    found.push(...some);
  }
}
