// Small things of the page: its elements, what changes in them, copying and saving.

export const element = (id) => document.getElementById(id);

const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()?.();

/** Lets the browser draw and hear keys before what follows; a timer would wait 4 ms from the fifth on. */
export const nextTask = () =>
  new Promise((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });

const shown = new Map();

/** Puts HTML of the engine into a part of the page, if it is new; what was unfolded stays so. Whether it was new. */
export function put(id, html) {
  if (shown.get(id) === html) return false;
  shown.set(id, html);
  const place = element(id);
  const open = new Set([...place.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  place.innerHTML = html;
  for (const one of place.querySelectorAll("details > summary")) if (open.has(one.textContent)) one.parentElement.open = true;
  return true;
}

/** Shows a text, or hides its place where there is none. */
export function show(id, text) {
  const place = element(id);
  place.textContent = text;
  place.hidden = !text;
}

export async function copyText(button, text) {
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copiedByHand(text);
  }
  button.textContent = done ? "Copied" : "Not copied: select it by hand";
  setTimeout(() => (button.textContent = label), 2000);
}

function copiedByHand(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function paragraph(text, kind = "") {
  const one = document.createElement("p");
  one.textContent = text;
  one.className = kind;
  return one;
}

/** A button that sets knobs or copies, as its data say. */
export function button(label, data, kind = "setting") {
  const one = document.createElement("button");
  one.type = "button";
  one.className = kind;
  one.textContent = label;
  Object.assign(one.dataset, data);
  return one;
}

/** A file: its name, a button that copies it, its text. */
export function fileShown({ name, text }, place) {
  const title = document.createElement("h3");
  title.textContent = name;
  const code = document.createElement("code");
  code.id = `file-${place}`;
  code.textContent = text;
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  pre.setAttribute("aria-label", name);
  pre.append(code);
  return [title, button(`Copy ${name}`, { copies: code.id }, "copy"), pre];
}
