/* Faces: identify, compare, add, list and forget. */

import { ask, askPatiently, at, bringIntoView, count, droppedFiles, isPicture, limits, made, working } from "./service.js";

const SVG = "http://www.w3.org/2000/svg";
const CLOSE = 0.8; // of the tolerance: above it, a match is told as unsure
const TALLEST = 70; // percent of the window
let addresses = [];

const path = (route, more = {}) => {
  const params = new URLSearchParams({ ...(at("gallery").value ? { gallery: at("gallery").value } : {}), ...more });
  return params.size ? `${route}?${params}` : route;
};

/* Show that work goes on, then what it gave; a failure is told. */
async function answer(text, work) {
  at("face-answer").hidden = false;
  at("face-state").className = "soft";
  at("face-state").replaceChildren(working(text));
  at("face-shown").replaceChildren();
  for (const address of addresses) URL.revokeObjectURL(address);
  addresses = [];
  bringIntoView(at("face-answer"));
  try {
    const [told, ...shown] = await work();
    at("face-state").textContent = told;
    at("face-shown").replaceChildren(...shown);
  } catch (error) {
    at("face-state").className = "bad";
    at("face-state").textContent = error.message;
    if (error.body?.photos) at("face-shown").replaceChildren(outcomes(error.body.photos));
  }
  bringIntoView(at("face-answer"));
}

function svg(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/* A photo with boxes and names. boxes: [box, text, is known]. width, height: pixels of the photo as the service saw it. */
function framed(file, width, height, boxes, alt) {
  const source = URL.createObjectURL(file), stroke = Math.max(width, height) / 200, size = Math.max(width, height) / 28;
  addresses.push(source);
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (const [{ left, top, right, bottom }, text, isKnown] of boxes) {
    drawn.append(
      svg("rect", { x: left, y: top, width: right - left, height: bottom - top, "stroke-width": stroke, class: isKnown ? "" : "unknown" }),
      svg("text", { x: left, y: bottom + size < height ? bottom + size : top - size / 4, "font-size": size, "stroke-width": size / 6 }, text));
  }
  const figure = made("figure", [made("img", [], { src: source, alt, width, height }), drawn], { className: "framed" });
  figure.style.maxWidth = `${TALLEST * width / height}vh`;
  return figure;
}

async function identify(file) {
  const form = new FormData();
  form.append("image", file, file.name || "photo.png");
  const [body] = await askPatiently(path("faces/identify"), { method: "POST", body: form });
  const name = face => face.name ?? "unknown";
  const told = body.faces.length ? `${count(body.faces.length, "face")}: ${body.faces.map(name).join(", ")}.` : "There is no face in this photo.";
  const hint = body.faces.length && !body.known ? [made("p", "Nobody is known yet. Add a person first.", { className: "soft" })] : [];
  const lines = body.faces.map(face => made("li", [made("strong", name(face)), made("span",
    face.distance === null ? "" : `distance ${face.distance.toFixed(2)}, the limit is ${body.tolerance}`, { className: "soft" })]));
  return [told, framed(file, body.width, body.height, body.faces.map(face => [face.box, name(face), face.name !== null]), told), ...hint,
    ...(lines.length ? [made("ul", lines, { className: "people" })] : [])];
}

async function compare(a, b) {
  const form = new FormData();
  form.append("a", a, a.name);
  form.append("b", b, b.name);
  const [body] = await askPatiently("faces/compare", { method: "POST", body: form });
  const sure = body.same ? body.distance < CLOSE * body.tolerance : body.distance > body.tolerance / CLOSE;
  const told = `${body.same ? "The same person" : "Two different people"}${sure ? "" : ", but it is close"}. The distance is ${body.distance.toFixed(2)}; up to ${body.tolerance} is the same person.`;
  const photo = (file, { box, width, height, faces }) => made("div", [framed(file, width, height, [[box, "", true]], file.name),
    made("div", faces > 1 ? `${file.name}: the largest of ${faces} faces` : file.name, { className: "name" })]);
  return [told, made("div", [photo(a, body.a), photo(b, body.b)], { className: "pair" })];
}

/* What became of each photo of an enrolment. */
function outcomes(photos) {
  const text = photo => photo.error ? photo.error.detail : photo.accepted ? (photo.stored ? "accepted" : "known already") : photo.reasons.map(reason => reason.text).join(" ");
  return made("ul", photos.map(photo => made("li", [made("span", photo.name || "photo"), made("span", text(photo), { className: photo.accepted ? "good" : "bad" })])), { className: "people" });
}

async function enrol(name, files) {
  const photos = [];
  for (let start = 0; start < files.length; start += limits.maxImages) {
    const form = new FormData();
    for (const file of files.slice(start, start + limits.maxImages)) form.append("image", file, file.name);
    const [body] = await askPatiently(path(`faces/people/${encodeURIComponent(name)}`), { method: "POST", body: form });
    photos.push(...body.photos);
  }
  await listPeople();
  return [`${name} is known by ${count(photos.filter(photo => photo.accepted).length, "photo")} of ${photos.length}.`, outcomes(photos)];
}

async function listPeople() {
  try {
    const people = await ask(path("faces/people")).then(([body]) => body.people, error => {
      if (error.body?.code === "unknown_gallery") return [];
      throw error;
    });
    at("people").replaceChildren(...people.map(person));
    at("people-state").textContent = people.length ? "" : "Nobody yet.";
  } catch (error) { at("people-state").textContent = error.message; }
}

function person({ name, encodings, expires }) {
  const button = made("button", "Forget", { type: "button", className: "small", "aria-label": `Forget ${name}` });
  button.onclick = async () => {
    if (!confirm(`Forget ${name}? What the service stores about this face is deleted.`)) return;
    try {
      await ask(path(`faces/people/${encodeURIComponent(name)}`), { method: "DELETE" });
      await listPeople();
      at("people-state").textContent = `${name} is forgotten.`;
    } catch (error) { at("people-state").textContent = error.message; }
  };
  const until = expires ? `, until ${expires}` : "";
  return made("li", [made("span", [made("strong", name), made("span", ` ${count(encodings, "photo")}${until}`, { className: "soft" })]), button]);
}

async function listGalleries() {
  const galleries = await ask("faces/galleries").then(([body]) => body.galleries.map(({ name }) => name), () => []);
  if (galleries.length > 1) {
    const now = at("gallery").value;
    at("gallery").replaceChildren(...galleries.map(name => made("option", name)));
    at("gallery").value = galleries.includes(now) ? now : galleries.includes("default") ? "default" : galleries[0];
    at("gallery-choice").hidden = false;
  }
  await listPeople();
}

function take(files) {
  const photo = files.find(isPicture);
  at("face-told").textContent = !photo ? `${files[0].name} is not an image.` : files.length > 1 ? `One photo at a time: this is ${photo.name}.` : "";
  if (photo) answer("Looking for faces …", () => identify(photo));
}

function show(mode) {
  for (const each of ["classify", "faces"]) {
    at(each).hidden = each !== mode;
    at(`to-${each}`).setAttribute("aria-pressed", String(each === mode));
  }
  history.replaceState(null, "", mode === "faces" ? "#faces" : location.pathname + location.search);
  if (mode === "faces") listGalleries();
}

if (limits.faces) {
  at("modes").hidden = false;
  for (const mode of ["classify", "faces"]) at(`to-${mode}`).onclick = () => show(mode);
  if (location.hash === "#faces") show("faces");
  at("gallery").onchange = listPeople;
  at("identify-file").onchange = event => {
    if (event.target.files.length) take([...event.target.files]);
    event.target.value = "";
  };
  at("compare-form").onsubmit = event => {
    event.preventDefault();
    answer("Comparing …", () => compare(at("face-a").files[0], at("face-b").files[0]));
  };
  at("enrol-form").onsubmit = event => {
    event.preventDefault();
    answer("Judging the photos …", () => enrol(at("person").value.trim(), [...at("person-files").files]));
  };
  at("key-form").addEventListener("submit", () => { if (!at("faces").hidden) setTimeout(listGalleries); });
  addEventListener("drop", async event => {
    if (at("faces").hidden) return;
    const files = await droppedFiles(event.dataTransfer);
    if (files.length) take(files);
  });
  document.addEventListener("paste", event => {
    if (!at("faces").hidden && event.clipboardData.files.length) take([...event.clipboardData.files]);
  });
}
