// Python in a worker, so that typing never waits for an answer. Nothing is fetched from elsewhere.
import { loadPyodide } from "./pyodide.mjs";
import { KeptMemory } from "./memory.js";
import { addFiles, startPython } from "./python.js";

const here = new URL(".", self.location.href);
const fetched = self.fetch.bind(self);
let loaded = 0;
self.fetch = async (input, options) => {
  const address = new URL(input instanceof Request ? input.url : input, here);
  if (address.origin !== here.origin) throw new TypeError("a page fetches nothing from elsewhere");
  const response = await fetched(input, options);
  if (!response.ok || !response.body) return response;
  const counted = response.body.pipeThrough(new TransformStream({ transform: count }));
  return new Response(counted, { status: response.status, headers: response.headers });
};

function count(chunk, controller) {
  loaded += chunk.byteLength;
  self.postMessage({ kind: "progress", loaded });
  controller.enqueue(chunk);
}

async function document(name) {
  const response = await self.fetch(new URL(name, here));
  if (!response.ok) throw new Error(`${name} is missing`);
  return response.json();
}

const kept = new KeptMemory(`{{cache}} ${here.href}`, here);
const NEEDS_READERS = new Set(["check", "file"]);
let engine = null;
let readers = null;
let mounted = false;
let answers = 0;
const EVERY = 10; // answers, after which what nobody holds any more is let go: while nobody waits

async function answer(question, file) {
  if (NEEDS_READERS.has(question.kind)) {
    readers ??= document("readers.json").then((files) => addFiles(engine.python, files));
    await readers;
  }
  if (file) mount(question.name, file);
  return JSON.parse(engine.ask(JSON.stringify(question)));
}

/** Shows a file to Python, which reads it piece by piece and never holds all of it. */
function mount(name, file) {
  const { FS } = engine.python;
  if (mounted) FS.unmount("/dropped");
  else FS.mkdirTree("/dropped");
  FS.mount(FS.filesystems.WORKERFS, { blobs: [{ name, data: file }] }, "/dropped");
  mounted = true;
}

/** Of a traceback, what went wrong. */
function lastLine(error) {
  return String(error).trim().split("\n").at(-1).slice(0, 300);
}

self.onmessage = async ({ data: { number, question, file } }) => {
  let found;
  try {
    found = await answer(question, file);
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError || /fatal/i.test(String(error))) {
      await kept.drop();
      return self.postMessage({ kind: "failed", why: lastLine(error) }); // Python is gone: a new worker starts it again
    }
    found = { ok: false, error: `This question cannot be answered here (${lastLine(error)}).`, field: "", near: [] };
  }
  self.postMessage({ kind: "answer", number, answer: found });
  answers += 1;
  if (answers % EVERY === 0) setTimeout(() => engine.tidy());
  if (answers === 1 && engine.memory) setTimeout(keep);
};

/** Keeps Python's memory for the next visit: while nobody waits. */
function keep() {
  kept.write(engine.memory);
  engine.memory = null;
}

/** Starts Python from the memory that is kept; where none is, or it is of no use, from the beginning. */
async function start() {
  const files = document("engine.json");
  const options = { indexURL: here.href };
  const memory = await kept.read();
  if (memory) {
    try {
      return await startPython(loadPyodide, options, files, { memory });
    } catch {
      await kept.drop();
    }
  }
  return startPython(loadPyodide, options, files, { kept: true });
}

try {
  engine = await start();
  engine.python.pyimport("advisor.page.dropped").progress = (done, all) => self.postMessage({ kind: "reading", done, all });
  self.postMessage({ kind: "ready", begun: engine.begun });
} catch (error) {
  self.postMessage({ kind: "failed", why: lastLine(error) });
}
