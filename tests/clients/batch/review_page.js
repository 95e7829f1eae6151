// Runs the script of a review page on a document that is just real enough, uses it as a person would, and prints what
// came of it as JSON. Usage: node review_page.js PAGE
const fs = require("fs");
const script = fs.readFileSync(process.argv[2], "utf8").match(/<script>([\s\S]*)<\/script>/)[1];

class Element {
  constructor() {
    this.children = []; this.dataset = {}; this.value = ""; this.listeners = {};
    this.classList = { toggle() {} };
  }
  get options() { return this.children; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  addEventListener(type, listener) { this.listeners[type] = listener; }
  click() {}
}
const known = {}, storage = {};
const find = (name) => (known[name] ??= new Element());
let saved = "";
Object.assign(globalThis, {
  document: { title: "page", createElement: () => new Element(), getElementById: find, querySelector: find },
  localStorage: { getItem: (key) => storage[key] ?? null, setItem: (key, value) => { storage[key] = value; } },
  prompt: () => '=a "new", label',
  URL: { createObjectURL: (blob) => blob },
  Blob: class { constructor(parts) { saved = parts.join(""); } },
});
new Function(script)();

const shown = () => find("main").children.length;
const choose = (card, value) => { const select = card.children[2]; select.value = value; select.listeners.change(); };
const result = { all: shown() };
find("wrong").checked = true; find("wrong").listeners.change(); result.wrong = shown();
find("wrong").checked = false; find("label").value = "dog"; find("label").listeners.change(); result.dog = shown();
find("label").value = "(failed)"; find("label").listeners.change(); result.failed = shown();
find("label").value = ""; find("label").listeners.change();
choose(find("main").children[1], "cat");
choose(find("main").children[2], "(another label ...)");
find("save").listeners.click();
result.saved = saved;
find("corrected").checked = true; find("corrected").listeners.change(); result.corrected = shown();
console.log(JSON.stringify(result));
