// The page: inputs to a question, the answer to the page. Every change answers; there is no button to press.
import { Combobox } from "./combobox.js";
import { Engine } from "./engine.js";
import { questionOf } from "./drop.js";
import { toggleRule } from "./rule.js";
import { addressOf, readAddress } from "./state.js";
import { button, copyText, download, element, fileShown, nextTask, paragraph, put, show } from "./view.js";

const TYPING_MS = 150; // from the last letter to the question
const PAUSE_MS = 1000; // from the last letter until what is wrong is said
const SETTLED_MS = 300; // from an answer to the published rows beside it
const TASK_MS = 20; // of putting an answer's parts, after which keys are heard

const form = element("question");
const inputs = new Map([...form.elements].filter((one) => one.name).map((one) => [one.name, one]));
const usual = flagsOf();
let own = null; // a dropped config.json, asked for in the model's place
let engine = null;
let typedAt = 0;
let timers = {};

function flagsOf() {
  const pairs = [...inputs].map(([name, input]) => [name, input.value.trim()]);
  return Object.fromEntries(pairs.filter(([, value]) => value));
}

function later(name, wait, run) {
  clearTimeout(timers[name]);
  timers[name] = setTimeout(run, wait);
}

// The question

/** Puts texts into their inputs; the names of those that no choice of theirs is. */
function setFlags(flags) {
  const strange = [];
  for (const [name, value] of Object.entries(flags)) {
    const input = inputs.get(name);
    if (!input) continue;
    input.value = value;
    if (input.value === value) continue;
    input.value = ""; // a choice that is not in the list
    strange.push(name);
  }
  if (flags.model) forgetOwn();
  return strange;
}

function changed(wait = 0) {
  later("ask", wait, ask);
}

async function ask() {
  const flags = flagsOf();
  const question = { flags, config: own?.text ?? "" };
  const asked = engine?.ready && engine.ask({ kind: "advise", whole: false, ...question });
  history.replaceState(null, "", same(flags, usual) && !own ? location.pathname + location.search : addressOf(flags));
  showSet(flags);
  if (!asked) return void document.body.classList.toggle("stale", !same(flags, usual));
  element("answer").setAttribute("aria-busy", "true");
  const found = await asked;
  if (found === undefined) return;
  clearWrong();
  if (found.ok) await showAnswer(found, question);
  else {
    element("answer").removeAttribute("aria-busy");
    refused(found);
  }
}

function same(some, others) {
  return JSON.stringify(Object.entries(some).sort()) === JSON.stringify(Object.entries(others).sort());
}

async function showAnswer(found, question) {
  document.body.classList.remove("stale");
  performance.mark("answered");
  await putAll(found.parts);
  element("command").textContent = found.command;
  const rest = await engine.ask({ kind: "below", ...question });
  if (rest === undefined) return; // a newer answer is under way
  if (rest.ok) {
    await putAll(rest.parts);
    showHints(rest.hints);
  } else refused(rest);
  element("answer").removeAttribute("aria-busy");
  later("trust", SETTLED_MS, askTrust);
}

async function putAll(parts) {
  let since = performance.now();
  for (const [name, html] of Object.entries(parts)) {
    put(name, html);
    if (performance.now() - since < TASK_MS) continue;
    await nextTask();
    since = performance.now();
  }
}

async function askTrust() {
  const question = { flags: flagsOf(), config: own?.text ?? "" };
  const trust = await engine.ask({ kind: "trust", ...question });
  if (trust?.ok && trust.html) put("published", trust.html);
  if (element("files").open) askFile();
}

async function askFile() {
  if (!engine?.ready) return;
  const target = element("target").value;
  const found = await engine.ask({ kind: "file", target, flags: flagsOf(), config: own?.text ?? "" });
  if (found === undefined) return;
  const place = element("file");
  if (!found.ok) return place.replaceChildren(paragraph(found.error, "problem"));
  place.replaceChildren(...found.files.flatMap(fileShown), paragraph(`Start it with: ${found.run}`));
}

function showHints(hints) {
  for (const name of inputs.keys()) {
    const place = element(`${name}-hint`);
    const hint = hints[name];
    const text = hint ? `Now ${hint.value} (${hint.who}${hint.source ? `: ${hint.source}` : ""})` : "";
    if (place.textContent !== text) place.textContent = text;
  }
}

/** The folded knobs that are set, each a button that leaves it open again. */
function showSet(flags) {
  const names = Object.keys(flags).filter((name) => inputs.get(name).closest("#knobs"));
  const buttons = names.map((name) => {
    const said = name.replaceAll("_", " ");
    const one = button(`${said}: ${flags[name]} \u2715`, { knobs: JSON.stringify({ [name]: "" }) });
    one.setAttribute("aria-label", `${said} is ${flags[name]}: leave it open`);
    return one;
  });
  element("set").hidden = !names.length;
  element("set").replaceChildren(...(names.length ? ["Set:", ...buttons] : []));
}

// What is wrong

function clearWrong() {
  show("problem", "");
  for (const [name, input] of inputs) {
    if (!input.hasAttribute("aria-invalid")) continue;
    input.removeAttribute("aria-invalid");
    show(`${name}-wrong`, "");
  }
}

/** Says what is wrong at the input that it is about; while somebody types there, not before a pause. */
function refused(found) {
  document.body.classList.add("stale");
  const input = inputs.get(found.field);
  const since = performance.now() - typedAt;
  if (input && document.activeElement === input && since < PAUSE_MS) {
    later("wrong", PAUSE_MS - since, () => sayWrong(found, input));
  } else sayWrong(found, input);
}

function sayWrong(found, input) {
  if (!input) return show("problem", found.error);
  input.setAttribute("aria-invalid", "true");
  if (input.closest("#knobs")) element("knobs").open = true;
  show(`${input.name}-wrong`, found.error);
  const place = element(`${input.name}-wrong`);
  for (const near of found.near ?? []) {
    place.append(" ", button(near, { knobs: JSON.stringify({ [input.name]: near }) }));
  }
}

// What is dropped

async function dropped(file) {
  const asked = await questionOf(file);
  const place = element("dropped");
  if (asked.error) return place.replaceChildren(paragraph(asked.error, "problem"));
  if (asked.kind === "config") {
    own = { name: asked.name, text: asked.text };
    element("own").textContent = `The model is that of ${asked.name}, which the link does not hold.`;
    element("own").hidden = false;
    place.replaceChildren();
    return changed();
  }
  if (!engine?.ready) return place.replaceChildren(paragraph("The engine is still loading; drop the file again in a moment.", "notice"));
  place.replaceChildren(paragraph(`Reading ${asked.name} ...`));
  const { file: data = null, ...question } = asked;
  const found = await engine.ask({ ...question, flags: flagsOf() }, data);
  if (found === undefined) return;
  if (!found.ok) return place.replaceChildren(paragraph(found.error, "problem"));
  const verdict = paragraph(found.verdict, `verdict ${found.state}`);
  const body = document.createElement("div");
  body.innerHTML = found.html;
  const label = question.kind === "data" ? "Ask with these rows" : "Ask about this run";
  const take = button(label, { knobs: JSON.stringify(found.knobs) });
  place.replaceChildren(verdict, take, body);
}

function forgetOwn() {
  own = null;
  element("own").hidden = true;
}

// Events

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", ({ target }) => {
  typedAt = performance.now();
  clearTimeout(timers.wrong);
  if (target.name === "model") forgetOwn();
  changed(target.tagName === "SELECT" ? 0 : TYPING_MS);
});
form.addEventListener("change", () => changed());
form.addEventListener("focusout", ({ target }) => {
  typedAt = 0;
  if (target.name) changed();
});

function pressed(target) {
  const setting = target.closest("[data-knobs]");
  if (setting) {
    setFlags(JSON.parse(setting.dataset.knobs));
    changed();
    element("verdict").focus();
    return true;
  }
  const rule = target.closest("[data-rule]");
  if (rule && engine?.ready) toggleRule(rule, (question) => engine.ask(question));
  const copy = target.closest("[data-copies]");
  if (copy) copyText(copy, copy.dataset.copies === "address" ? location.href : element(copy.dataset.copies).textContent);
}

document.addEventListener("click", ({ target }) => pressed(target));
document.addEventListener("keydown", (event) => {
  const drawn = event.target.closest?.("svg [data-knobs]");
  if (drawn && (event.key === "Enter" || event.key === " ") && pressed(drawn)) event.preventDefault();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const file = event.dataTransfer?.files[0];
  if (file) dropped(file).then(() => element("drop").scrollIntoView({ block: "nearest" }));
});
element("chosen").addEventListener("change", ({ target }) => {
  if (target.files[0]) dropped(target.files[0]);
  target.value = "";
});
element("files").addEventListener("toggle", () => element("files").open && askFile());
element("target").addEventListener("change", askFile);
element("save-json").addEventListener("click", async () => {
  const found = await engine.ask({ kind: "advise", flags: flagsOf(), config: own?.text ?? "" });
  if (found?.ok) download("advice.json", `${found.json}\n`);
});
addEventListener("hashchange", () => readLink() && changed());

function readLink() {
  const { flags, said } = readAddress(location.hash, new Set(inputs.keys()));
  show("notice", said);
  if (!Object.keys(flags).length && !said) return false;
  for (const input of inputs.values()) input.value = "";
  const strange = setFlags(Object.keys(flags).length ? flags : usual);
  if (strange.length) show("notice", `Left out of the link, as this page does not know its value: ${strange.join(", ")}.`);
  return true;
}

// The engine

function told(message) {
  if (message.kind === "progress") {
    element("engine-bar").value = Math.min(1, message.loaded / Number(document.body.dataset.bytes));
  } else if (message.kind === "reading") {
    element("dropped").replaceChildren(paragraph(`Read ${Math.round((100 * message.done) / (message.all || 1))} % ...`));
  } else if (message.kind === "ready") {
    performance.mark("ready", { detail: message.begun });
    element("engine").hidden = true;
    document.body.classList.add("live");
    if (!message.again) ask();
    keepOffline();
  } else giveUp(`The engine could not be started here, so this page shows one answer and cannot take another. ${message.why ?? ""}`);
}

function giveUp(why) {
  element("engine").hidden = true;
  for (const input of inputs.values()) input.disabled = true;
  show("notice", why);
}

function keepOffline() {
  navigator.serviceWorker?.register(new URL("sw.js", import.meta.url)).catch(() => {});
}

for (const [name, kind] of [["model", "models"], ["gpu", "gpus"]]) {
  const search = async (query) => {
    if (!engine?.ready) return [];
    const found = await engine.ask({ kind, query });
    return found?.ok ? found.offers : undefined;
  };
  new Combobox(inputs.get(name), search, () => {
    typedAt = 0;
    if (name === "model") forgetOwn();
    changed();
  });
}

const linked = readLink();
if (typeof Worker !== "function" || typeof WebAssembly !== "object") {
  giveUp("This browser has no workers or no WebAssembly, so this page shows one answer and cannot take another.");
} else {
  if (linked) document.body.classList.add("stale");
  element("engine-text").textContent = "The engine is loading; below is the answer to the usual question.";
  element("engine").hidden = false;
  engine = new Engine(told);
}
