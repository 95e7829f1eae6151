/* Label images: choose a model, hand it images, show and download the answers. */

import { ask, askPatiently, at, base, bringIntoView, copyButton, count, droppedFiles, formFile, isPicture, key, limits, made, percent, quoted, sentences, working } from "./service.js";
import { startCamera } from "./camera.js";
import { startDrawing } from "./drawing.js";

const MOST_SHOWN = 100; // answers on the page; the CSV has all
const MOST_INPUTS = 12; // pictures of a run for which the model's input is asked, too
const BATCH_BYTES = 8e6; // so that answers keep coming; never more than the server takes
const FORM_BYTES = 1000; // of a form around one file
const POLL_MS = 2000;

let cards = new Map(), pictures = [], results = [], run = null;

/* Models */

function chosen() {
  return { model: at("model").value, version: at("version").value, minScore: Number(at("threshold").value) / 100 };
}

function query({ version, minScore }, more = {}) {
  const params = new URLSearchParams({ ...(version ? { version } : {}), ...(minScore ? { min_score: minScore } : {}), ...more });
  return params.size ? `?${params}` : "";
}

function remember() {
  const { model, version, minScore } = chosen();
  const params = new URLSearchParams({ model, ...(version ? { version } : {}), ...(minScore ? { min_score: minScore } : {}) });
  history.replaceState(null, "", `?${params}`);
}

async function listModels() {
  let models;
  try {
    [{ models }] = await ask("models");
  } catch (error) {
    tell(error.message);
    watchExports();
    return;
  }
  at("key-panel").hidden = true;
  const descriptions = await Promise.all(models.filter(model => model.ready && model.classifies !== false).map(model => ask(`models/${encodeURIComponent(model.name)}`).then(([body]) => body, () => null)));
  const ready = descriptions.filter(body => body?.card);
  cards = new Map(ready.map(body => [body.name, body]));
  watchExports();
  const wanted = at("model").value || new URLSearchParams(location.search).get("model");
  at("model").replaceChildren(...ready.map(body => made("option", body.name)));
  at("model").disabled = !ready.length;
  if (!ready.length) {
    tell("No model that labels images is ready yet.");
    return;
  }
  tell(wanted && !cards.has(wanted) ? `There is no model ${wanted} here.` : "");
  at("model").value = cards.has(wanted) ? wanted : ready[0].name;
  describe();
}

function describe() {
  const body = cards.get(at("model").value), wanted = at("version").value || new URLSearchParams(location.search).get("version");
  const available = body.versions.filter(version => version.state === "AVAILABLE").map(({ version }) => String(version));
  at("version").replaceChildren(made("option", `newest (${body.version})`, { value: "" }), ...available.reverse().map(version => made("option", version, { value: version })));
  at("version").value = available.includes(wanted) ? wanted : "";
  const { card } = body;
  const names = card.labels.map(label => label.name), classes = count(names.length, "class", "classes");
  at("knows").textContent = names.length > 10 ? `${classes}, such as ${names.slice(0, 3).join(", ")}` : `${classes}: ${names.join(", ")}`;
  at("drawing").hidden = card.preprocessing.fit !== "ink";
  showCard(body);
  showPrograms();
}

function showCard({ version, card }) {
  const size = card.preprocessing;
  const metrics = Object.entries(card.metrics).filter(([, value]) => typeof value === "number");
  const rows = [
    ["Name", `${card.name}, version ${version}`], ["Family", card.family], ["Created", card.created],
    ["Source", `${card.source.kind} ${card.source.name}`], ["Input", `${size.width} × ${size.height}, ${size.color}, fit: ${size.fit}`],
    ["Parameters", card.training.parameters.toLocaleString("en")],
    ...metrics.map(([name, value]) => [name.replaceAll("_", " "), String(Math.round(value * 1e4) / 1e4)]),
    ["Labels", card.labels.length > 30 ? count(card.labels.length, "class", "classes") : card.labels.map(label => label.name).join(", ")],
  ];
  at("card").replaceChildren(...rows.flatMap(([term, text]) => [made("dt", term), made("dd", text)]));
}

/* Show which models are still being exported, and list the models again when others are served. */
async function watchExports() {
  clearTimeout(watch.timer);
  const [isOk, body] = await ask("readyz").then(([answer]) => [true, answer], error => [false, error.body || {}]);
  const { models = [], exports = [] } = body, lines = isOk ? exports.map(exportLine) : [body.detail || ""];
  at("exports").replaceChildren(...lines.map(line => made("span", line, { className: "line" })));
  at("exports").hidden = !lines.length;
  const names = models.join(), isNew = isOk && watch.names !== null && watch.names !== names;
  if (isOk) watch.names = names;
  if (isNew) listModels();
  else if (!isOk || !cards.size || exports.some(({ state }) => state !== "failed")) watch.timer = setTimeout(watchExports, POLL_MS);
}
const watch = { timer: null, names: null };

function exportLine({ model, state, detail }) {
  return `${model} ${state === "failed" ? "could not be exported" : "is being exported"}: ${detail || state}`;
}

/* Programs */

const MOST_NAMED = 5; // files in the curl line

const nameOf = file => file.name || "image.png";

function curlLine() {
  const names = pictures.length ? pictures.slice(0, MOST_NAMED).map(nameOf) : ["photo.jpg"];
  const { model, ...rest } = chosen();
  return ["curl", ...(key.value ? ['-H "Authorization: Bearer $KEY"'] : []), ...names.map(name => `-F ${formFile("image", name)}`),
    quoted(`${base}predict/${encodeURIComponent(model)}${query(rest)}`)].join(" ");
}

function pythonLines() {
  const { model, version, minScore } = chosen();
  const options = [`model=${JSON.stringify(model)}`, ...(version ? [`version=${version}`] : []), ...(minScore ? [`min_score=${minScore}`] : [])].join(", ");
  const names = pictures.slice(0, MOST_NAMED).map(picture => JSON.stringify(nameOf(picture)));
  const body = names.length > 1
    ? `    for prediction in client.predict_many([${names.join(", ")}], ${options}):\n        print(prediction)`
    : `    print(client.predict(${names[0] || '"photo.jpg"'}, ${options}))`;
  return `from sightline import Client\n\nwith Client(${JSON.stringify(base.replace(/\/$/, ""))}${key.value ? ", api_key=KEY" : ""}) as client:\n${body}`;
}

function showPrograms() {
  at("curl").textContent = curlLine();
  at("python").textContent = pythonLines();
  at("where").textContent = pictures.length > MOST_NAMED
    ? `The first ${MOST_NAMED} of ${pictures.length} images. For a whole folder: sightline score FOLDER --out labels.csv`
    : pictures.length ? "Run it in the folder of the image." : "";
}
at("curl-head").append(copyButton(() => at("curl").textContent, "the curl command"));
at("python-head").append(copyButton(() => at("python").textContent, "the Python program"));

/* Answers */

function tell(text) { at("told").textContent = text; }

function thumbnail(source, alt, className = "thumb") {
  const image = made("img", [], { src: source, alt, loading: "lazy", decoding: "async" });
  const button = made("button", image, { type: "button", className, "aria-label": `Enlarge ${alt}` });
  button.onclick = () => {
    at("large-image").src = image.src;
    at("large-image").alt = alt;
    at("large-image").className = className.includes("saw") ? "saw" : "";
    at("large-name").textContent = alt;
    at("large").showModal();
  };
  return button;
}
at("large-close").onclick = () => at("large").close();
at("large").onclick = event => { if (event.target === at("large")) at("large").close(); };

/* The place of one picture's answer, which tells first that it is being waited for. */
function placeFor(picture) {
  const source = URL.createObjectURL(picture);
  addresses.push(source);
  const told = made("div", made("p", "Waiting", { className: "soft" }), { className: "told" });
  const shown = made("div", [thumbnail(source, nameOf(picture)), made("div", nameOf(picture), { className: "name" })], { className: "shown" });
  return made("li", [shown, told], { className: "answer" });
}
let addresses = [];

function fill(place, row) {
  const told = place.lastChild;
  if (row.error) {
    told.replaceChildren(made("p", sentences(row.error.detail, row.error.hint), { className: "bad" }));
    return;
  }
  const bars = made("div", [], { className: "bars" });
  for (const { label, id, score } of row.top) bars.append(made("span", label, { title: id ? `${label} (${id})` : label }), rail(score), made("b", percent(score)));
  const heading = made("div", made("span", row.label ?? "uncertain", { className: row.label === null ? "label soft" : "label" }));
  if (row.id) heading.append(" ", made("span", row.id, { className: "soft" }));
  told.replaceChildren(heading, bars);
  if (row.label === null) told.append(made("p", "No class reaches the lowest score.", { className: "soft" }));
  if (row.input) {
    const seen = thumbnail(row.input, `What the model saw of ${row.name || "the image"}`, "thumb saw"), name = made("div", "model input", { className: "name" });
    seen.firstChild.onload = () => { name.textContent = `model input, ${seen.firstChild.naturalWidth} × ${seen.firstChild.naturalHeight}`; };
    place.firstChild.append(seen, name);
  }
}

function rail(share) {
  const bar = made("i");
  bar.style.width = `${100 * share}%`;
  return made("div", bar, { className: "rail" });
}

/* The stages of the request in ms, and the rest of the total. */
function showTimes(header, spent) {
  const stages = header.split(", ").filter(Boolean).map(part => part.split(";dur=")).map(([name, ms]) => [name, Number(ms)]);
  const rest = spent - stages.reduce((sum, [, ms]) => sum + ms, 0);
  at("times").querySelector("summary").textContent = `${spent.toFixed(0)} ms total`;
  at("times").querySelector(".bars").replaceChildren(...[...stages, ["network", Math.max(0, rest)]].flatMap(([name, ms]) =>
    [made("span", name), rail(ms / spent), made("b", `${ms.toFixed(1)} ms`)]));
  at("times").hidden = false;
}

/* Groups of [index, picture] that the server takes in one request each. */
function* batches() {
  const most = Math.min(BATCH_BYTES, limits.maxRequestBytes);
  let batch = [], bytes = 0;
  for (const [index, picture] of pictures.entries()) {
    const size = picture.size + FORM_BYTES;
    if (batch.length && (batch.length === limits.maxImages || bytes + size > most)) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push([index, picture]);
    bytes += size;
  }
  if (batch.length) yield batch;
}

async function predict(batch, path, signal) {
  const form = new FormData();
  for (const [, picture] of batch) form.append("image", picture, nameOf(picture));
  const [{ predictions }, response] = await askPatiently(path, { method: "POST", body: form, signal });
  return [predictions, response.headers.get("Server-Timing") || ""];
}

async function classify(files = pictures) {
  pictures = files;
  showPrograms();
  if (!pictures.length || !at("model").value) return;
  run?.abort();
  const mine = run = new AbortController();
  for (const address of addresses) URL.revokeObjectURL(address);
  addresses = [];
  results = [];
  const { model, ...rest } = chosen(), total = pictures.length;
  const path = `predict/${encodeURIComponent(model)}${query(rest, total > MOST_INPUTS ? {} : { input: "png" })}`;
  const places = pictures.slice(0, MOST_SHOWN).map(placeFor);
  at("answers").replaceChildren(...places);
  at("prediction").hidden = false;
  at("prediction").setAttribute("aria-busy", "true");
  at("times").hidden = at("csv").hidden = true;
  at("stop").hidden = at("bar").hidden = total === 1;
  at("state").classList.remove("spoken");
  at("bar").max = total;
  at("bar").value = 0;
  at("state").replaceChildren(working(total === 1 ? `Classifying ${nameOf(pictures[0])} …` : `Classifying ${count(total, "image")} …`));
  bringIntoView(at("prediction"));
  const started = performance.now();
  let end = "";
  for (const batch of batches()) {
    for (const [index] of batch) places[index]?.lastChild.replaceChildren(made("p", working("Working"), { className: "soft" }));
    try {
      const [rows, timing] = await predict(batch, path, mine.signal);
      if (mine !== run) return;
      rows.forEach((row, place) => record(batch[place], row));
      if (total === 1) showTimes(timing, performance.now() - started);
    } catch (error) {
      if (mine !== run) return;
      if (error.name === "AbortError") { end = "Stopped."; break; }
      const aboutImages = [400, 413, 415, 422].includes(error.status);
      const row = { error: { code: error.body?.code || "", detail: error.message } };
      for (const entry of batch) record(entry, row);
      if (!aboutImages && error.status !== 504) { end = total > 1 ? "Stopped after an error of the service." : ""; break; }
    }
    at("bar").value = results.length;
    at("state").firstChild.lastChild.textContent = ` ${results.length.toLocaleString("en")} of ${count(total, "image")} …`;
  }
  finish(total, end, performance.now() - started);

  function record([index, picture], row) {
    results.push([nameOf(picture), row]);
    if (places[index]) fill(places[index], row);
  }
}

function finish(total, end, spent) {
  run = null;
  const bad = results.filter(([, row]) => row.error).length;
  for (const place of [...at("answers").children].slice(results.length)) place.lastChild.replaceChildren(made("p", "Not asked", { className: "soft" }));
  const parts = [end, total === 1 ? "" : `${(results.length - bad).toLocaleString("en")} of ${count(total, "image")} labelled in ${(spent / 1000).toFixed(1)} s.`,
    bad && total > 1 ? `${count(bad, "image")} could not be used.` : "", total > MOST_SHOWN ? `The first ${MOST_SHOWN} are shown; the CSV has all.` : ""];
  const [[name, row]] = results.length ? results : [["", {}]];
  at("state").textContent = parts.filter(Boolean).join(" ") || (bad ? "There is no answer." : `${name}: ${row.label ?? "uncertain"}, ${percent(row.score)}.`);
  at("state").classList.toggle("spoken", total === 1 && !bad && !end);
  at("bar").hidden = at("stop").hidden = true;
  at("csv").hidden = total === 1 || !results.length;
  at("prediction").removeAttribute("aria-busy");
  bringIntoView(at("prediction"));
}
at("stop").onclick = () => run?.abort();

/* CSV, RFC 4180 */
const field = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

at("csv").onclick = () => {
  const lines = results.map(([name, row]) => [name, row.label ?? "", row.id ?? "", row.score ?? "", row.error ? row.error.detail : row.reason ?? ""]);
  const text = [["file", "label", "id", "score", "note"], ...lines].map(line => line.map(value => field(String(value))).join(",")).join("\r\n");
  const address = URL.createObjectURL(new Blob([`${text}\r\n`], { type: "text/csv" }));
  made("a", [], { href: address, download: "labels.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
};

/* Images in: files, drops, pastes, samples */

function take(files) {
  const good = files.filter(isPicture), bad = files.filter(file => !isPicture(file));
  const names = bad.slice(0, 3).map(file => file.name).join(", ") + (bad.length > 3 ? ` and ${bad.length - 3} more` : "");
  tell(bad.length ? `${names} ${bad.length === 1 ? "is not an image" : "are not images"}.` : "");
  if (good.length) classify(good);
}

const isShown = () => !at("classify").hidden;
for (const id of ["files", "camera"]) at(id).onchange = event => {
  take([...event.target.files]);
  event.target.value = ""; // so that the same file can be chosen again
};
addEventListener("dragover", event => { event.preventDefault(); at("drop").classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
addEventListener("drop", async event => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (!isShown()) return;
  const files = await droppedFiles(event.dataTransfer);
  if (files.length) take(files);
  else tell("What was dropped holds no files.");
});
document.addEventListener("paste", event => {
  if (isShown() && event.clipboardData.files.length) take([...event.clipboardData.files]);
});
for (const button of at("samples").children) button.onclick = async () => {
  const { src } = button.firstElementChild;
  const blob = await (await fetch(src)).blob();
  take([new File([blob], src.split("/").pop(), { type: blob.type })]);
};

startCamera(file => take([file]), async blob => {
  const { model, ...rest } = chosen();
  const form = new FormData();
  form.append("image", blob, "frame.jpg");
  const [{ predictions: [row] }] = await askPatiently(`predict/${encodeURIComponent(model)}${query(rest)}`, { method: "POST", body: form });
  if (row.error) throw new Error(row.error.detail);
  return row.label === null ? "uncertain" : `${row.label} ${percent(row.score)}`;
}, tell);
startDrawing(file => take([file]));

/* Choices */

at("model").onchange = () => { at("version").value = ""; history.replaceState(null, "", location.pathname); describe(); remember(); classify(); };
at("version").onchange = () => { remember(); classify(); };
const showThreshold = () => { at("threshold-shown").textContent = at("threshold").value === "0" ? "any" : `${at("threshold").value} %`; };
at("threshold").oninput = showThreshold;
at("threshold").onchange = () => { remember(); classify(); };
const given = Number(new URLSearchParams(location.search).get("min_score"));
if (given > 0 && given < 1) at("threshold").value = Math.round(100 * given);
showThreshold();

document.addEventListener("key-wanted", () => {
  if (!at("key-panel").hidden) return;
  at("key-panel").hidden = false;
  at("key").focus();
});
at("key-form").onsubmit = event => {
  event.preventDefault();
  key.value = at("key").value;
  listModels();
};
listModels();
