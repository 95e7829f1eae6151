/* The specification, to read, to search and to try. */

import { at, base, copyButton, count, formFile, made, quoted, working } from "./service.js";

const PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mM0TjvDgA0wMeAAg1MCABqcAXU9I+xdAAAAAElFTkSuQmCC"; // a small PNG
const DEEPEST = 6; // of nested examples
const LONGEST_ANSWER = 100000; // characters on the page

let types = {}, root = "", model = "imagenet";

const named = reference => reference.split("/").pop();

/* A schema in one line. */
function inShort(schema) {
  if (!schema || !Object.keys(schema).length) return "anything";
  if (schema.$ref) return named(schema.$ref);
  if (schema.anyOf) return schema.anyOf.map(inShort).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map(value => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `[${inShort(schema.items)}, …]`;
  if (schema.format === "binary") return "bytes";
  const limits = [["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"]]
    .filter(([key]) => schema[key] !== undefined && Math.abs(schema[key]) < 1e15).map(([key, sign]) => ` ${sign} ${schema[key]}`);
  const without = schema.default === undefined ? "" : `, default ${JSON.stringify(schema.default)}`;
  return schema.type + limits.join("") + without;
}

/* The fields of an object, with nested objects indented. */
function fields(schema, indent = "", above = []) {
  if (!schema) return [];
  if (schema.$ref) {
    const name = named(schema.$ref);
    return above.includes(name) ? [] : fields(types[name], indent, [...above, name]);
  }
  if (schema.anyOf) return schema.anyOf.flatMap(one => fields(one, indent, above));
  if (schema.type === "array") return fields(schema.items, indent, above);
  return Object.entries(schema.properties || {}).flatMap(([name, value]) => {
    const optional = (schema.required || []).includes(name) ? "" : "?";
    return [`${indent}${name}${optional}: ${inShort(value)}`, ...fields(value, indent + "    ", above)];
  });
}

/* An example of a schema: its required fields, with values of the right type. */
function exampleOf(schema, name = "", depth = 0) {
  if (!schema || depth > DEEPEST) return null;
  if (schema.$ref) return exampleOf(types[named(schema.$ref)], name, depth + 1);
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return exampleOf(schema.anyOf[0], name, depth + 1);
  if (name === "b64") return PICTURE;
  if (schema.type === "array") return [exampleOf(schema.items, name, depth + 1)];
  if (schema.type === "object" || schema.properties) {
    const wanted = Object.entries(schema.properties || {}).filter(([key]) => (schema.required || []).includes(key));
    return Object.fromEntries(wanted.map(([key, value]) => [key, exampleOf(value, key, depth + 1)]));
  }
  if (schema.type === "integer" || schema.type === "number") return schema.minimum ?? 1;
  if (schema.type === "boolean") return false;
  return name || "text";
}

const EXAMPLES = { version: "1", label: "stable", top: "5", min_score: "0.5", tolerance: "0.6", expires: "2030-12-31", "X-Request-Timeout": "5", gallery: "default" };

/* The value that a path's parameter begins with. */
function pathExample(path, name) {
  if (name === "model" || path.startsWith("/models/")) return model;
  if (path.startsWith("/v") && name === "name") return model;
  return EXAMPLES[name] || (name === "name" ? (path.startsWith("/page/") ? "icon.svg" : "Ada") : name);
}

/* Text with `code` in it as elements. */
const rich = text => text.replace(/\s+/g, " ").split("`").map((part, place) => place % 2 ? made("code", part) : part);

function schemaOf(kind, schema) {
  const lines = fields(schema);
  const block = [made("div", [made("code", kind), " ", made("span", inShort(schema), { className: "soft" })])];
  if (lines.length) block.push(made("pre", lines.join("\n"), { tabIndex: 0, role: "region", "aria-label": `Fields of ${inShort(schema)}` }));
  return block;
}

const table = rows => made("table", made("tbody", rows.map(cells => made("tr", cells.map(cell => made("td", cell))))));

function operation(path, method, what) {
  const block = made("details");
  block.dataset.text = [method, path, what.summary, what.description || ""].join(" ").toLowerCase();
  block.append(made("summary", [made("code", method.toUpperCase(), { className: `method ${method}` }), made("code", root + path), made("span", rich(what.summary))]));
  block.addEventListener("toggle", () => { if (block.open && block.children.length === 1) block.append(...detailsOf(path, method, what)); });
  return block;
}

function detailsOf(path, method, what) {
  const block = [];
  if (what.description) block.push(made("p", rich(what.description)));
  if (what.security?.length) block.push(made("p", ["Needs an API key with the scope ", made("code", what.security[0].key.join(", ")), ": ", made("code", "Authorization: Bearer KEY")], { className: "soft" }));
  block.push(tryOut(path, method, what));
  if (what.parameters.length) {
    block.push(made("h3", "Parameters"), table(what.parameters.map(each => [
      made("code", each.name), `${inShort(each.schema)} (${each.in})`, rich(each.description || ""),
    ])));
  }
  if (what.requestBody) {
    block.push(made("h3", "Body"));
    for (const [kind, { schema }] of Object.entries(what.requestBody.content)) block.push(...schemaOf(kind, schema));
  }
  const bad = Object.entries(what.responses).filter(([status]) => status !== "200");
  block.push(made("h3", "Answer"));
  for (const [kind, { schema }] of Object.entries(what.responses["200"].content)) block.push(...schemaOf(kind, schema));
  const kinds = [...new Set(bad.flatMap(([, each]) => Object.keys(each.content)))];
  block.push(made("h3", "Errors"), made("div", made("code", kinds.join(", "))), table(bad.map(([status, each]) => [made("code", status), rich(each.description)])));
  return block;
}

/* Try it out */

let forms = 0;

function control(label, element, isWhole = false) {
  element.id = `try-${++forms}`;
  return made("div", [made("label", label, { htmlFor: element.id }), element], { className: isWhole ? "whole" : "" });
}

function inputFor(path, parameter) {
  const { schema, name } = parameter, choices = schema.enum || (schema.type === "boolean" ? ["true", "false"] : null);
  if (choices) return made("select", ["", ...choices].map(value => made("option", String(value))));
  if (parameter.in === "path") return made("input", [], { value: pathExample(path, name), required: true });
  return made("input", [], { placeholder: schema.default !== undefined ? String(schema.default) : EXAMPLES[name] ? `such as ${EXAMPLES[name]}` : "" });
}

/* The controls of a body of one content type, with functions to send it and to write it for curl. */
function bodyOf(kind, schema) {
  if (kind === "multipart/form-data") {
    const inputs = Object.entries(schema.properties).map(([name, each]) => [name, made("input", [], { type: "file", multiple: each.type === "array" })]);
    return {
      controls: inputs.map(([name, input]) => control(name, input)),
      send: () => {
        const form = new FormData();
        for (const [name, input] of inputs) for (const file of input.files) form.append(name, file, file.name);
        return [form, {}];
      },
      curl: () => inputs.flatMap(([name, input]) => (input.files.length ? [...input.files].map(file => file.name) : ["photo.jpg"]).map(file => `-F ${formFile(name, file)}`)),
    };
  }
  if (kind.endsWith("json")) {
    const text = made("textarea", JSON.stringify(exampleOf(schema), null, 2));
    return {
      controls: [control("JSON", text, true)],
      send: () => [text.value, { "Content-Type": kind }],
      curl: () => [`-H 'Content-Type: ${kind}'`, `-d ${quoted(text.value.replace(/\s*\n\s*/g, " "))}`],
    };
  }
  const input = made("input", [], { type: "file" }), type = () => kind.includes("*") ? input.files[0]?.type || "image/jpeg" : kind;
  return {
    controls: [control(kind, input)],
    send: () => [input.files[0] || "", { "Content-Type": type() }],
    curl: () => [`-H 'Content-Type: ${type()}'`, `--data-binary ${quoted(`@${input.files[0]?.name || "photo.jpg"}`)}`],
  };
}

function tryOut(path, method, what) {
  const inputs = what.parameters.map(parameter => [parameter, inputFor(path, parameter)]);
  const kinds = Object.entries(what.requestBody?.content || {}), place = made("div");
  const chosen = made("select", kinds.map(([kind]) => made("option", kind, { value: kind })));
  const line = made("pre", "", { tabIndex: 0, role: "region", "aria-label": "curl command" }), answer = made("div"), state = made("p", "", { className: "soft", role: "status" });
  let body = null;

  function addressOf() {
    const query = new URLSearchParams();
    let address = path;
    for (const [{ name, in: where }, { value }] of inputs) {
      if (where === "path") address = address.replace(`{${name}}`, encodeURIComponent(value));
      else if (where === "query" && value) query.append(name, value);
    }
    return base + address.slice(1) + (query.size ? `?${query}` : "");
  }
  const given = () => Object.fromEntries(inputs.filter(([{ in: where }, { value }]) => where === "header" && value).map(([{ name }, { value }]) => [name, value]));
  const needsKey = Boolean(what.security?.length);

  function show() {
    line.textContent = ["curl", ...(method === "get" || (method === "post" && body) ? [] : [`-X ${method.toUpperCase()}`]),
      ...(needsKey ? ['-H "Authorization: Bearer $KEY"'] : []),
      ...Object.entries(given()).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`), ...(body?.curl() || []), quoted(addressOf())].join(" ");
  }
  function choose() {
    body = kinds.length ? bodyOf(chosen.value, kinds.find(([kind]) => kind === chosen.value)[1].schema) : null;
    place.replaceChildren(...(body?.controls || []));
    show();
  }

  async function send(event) {
    event.preventDefault();
    if (method === "delete" && !confirm("This deletes. Send it?")) return;
    const [content, headers] = body ? body.send() : [undefined, {}], started = performance.now();
    const key = at("key").value ? { Authorization: `Bearer ${at("key").value}` } : {};
    answer.replaceChildren();
    state.replaceChildren(working("Working"));
    try {
      const response = await fetch(addressOf(), { method: method.toUpperCase(), body: content, headers: { ...headers, ...given(), ...key } });
      const shown = await answerOf(response);
      state.textContent = `${response.status} ${response.statusText}, ${(performance.now() - started).toFixed(0)} ms`;
      answer.replaceChildren(shown);
    } catch (error) {
      state.textContent = `The service cannot be reached: ${error.message}`;
    }
  }

  const form = made("form", [
    made("h3", "Try it out"),
    made("div", inputs.map(([{ name, required }, input]) => control(required ? name : `${name} (optional)`, input)), { className: "fields" }),
    ...(kinds.length > 1 ? [control("Body", chosen, true)] : []), place,
    made("div", [made("h3", "Command line"), copyButton(() => line.textContent, "the curl command")], { className: "row apart" }), line,
    made("div", made("button", "Send", { className: "first" }), { className: "row" }), state, answer,
  ], { className: "try" });
  chosen.onchange = choose;
  form.oninput = form.onchange = show;
  form.onsubmit = send;
  choose();
  return form;
}

async function answerOf(response) {
  const kind = response.headers.get("Content-Type") || "";
  if (kind.startsWith("image/")) {
    const image = made("img", [], { src: URL.createObjectURL(await response.blob()), alt: "The answer" });
    image.onload = () => URL.revokeObjectURL(image.src);
    return image;
  }
  let text = await response.text();
  if (/\bjson\b/.test(kind)) text = JSON.stringify(JSON.parse(text), null, 2);
  const shown = text.length > LONGEST_ANSWER ? `${text.slice(0, LONGEST_ANSWER)}\n… and ${count(text.length - LONGEST_ANSWER, "character")} more` : text;
  return made("pre", shown, { tabIndex: 0, role: "region", "aria-label": "Answer" });
}

/* The page */

function show(document_) {
  types = document_.components.schemas;
  root = document_.servers[0].url.replace(/\/$/, "");
  at("version").textContent = `· OpenAPI ${document_.openapi} · version ${document_.info.version}`;
  at("key-panel").hidden = !document_.components.securitySchemes;
  at("operations").replaceChildren(...document_.tags.flatMap(tag => {
    const blocks = Object.entries(document_.paths).flatMap(([path, methods]) =>
      Object.entries(methods).filter(([, what]) => what.tags.includes(tag.name)).map(([method, what]) => operation(path, method, what)));
    return blocks.length ? [made("section", [made("h2", tag.name), made("div", rich(tag.description), { className: "soft" }), ...blocks])] : [];
  }));
}

at("search").oninput = () => {
  const wanted = at("search").value.trim().toLowerCase();
  let found = 0;
  for (const section of at("operations").querySelectorAll("section")) {
    let shown = 0;
    for (const block of section.querySelectorAll("details")) {
      block.hidden = !block.dataset.text.includes(wanted);
      shown += !block.hidden;
    }
    section.hidden = !shown;
    found += shown;
  }
  at("found").textContent = !wanted ? "" : found ? `${count(found, "operation")} found.` : `No operation has “${at("search").value}” in its path or its text.`;
};

const served = await fetch("readyz").then(response => response.json()).catch(() => ({}));
model = served.models?.[0] || model;
try {
  show(await (await fetch("openapi.json")).json());
} catch (error) {
  at("operations").replaceChildren(made("p", `The specification cannot be loaded: ${error.message}`, { className: "bad" }));
}
