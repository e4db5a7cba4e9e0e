// node benchmarks/page_answers.mjs RUNTIME ENGINE QUESTIONS: answers questions under Pyodide as the page does.
// RUNTIME: a folder with Pyodide's files; ENGINE: a folder with engine.json and readers.json; QUESTIONS: a JSON list.
// Prints one JSON object: Python's version, the answers, and the milliseconds that each took.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { startPython } from "../advisor/site/static/python.js";

const [runtime, engine, questions] = process.argv.slice(2);
const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const { loadPyodide } = await import(pathToFileURL(resolve(runtime, "pyodide.mjs")));
const start = performance.now();
const files = { ...read(`${engine}/engine.json`), ...read(`${engine}/readers.json`) };
const { python, ask } = await startPython(loadPyodide, { indexURL: `${resolve(runtime)}/` }, files);
const started = performance.now() - start;
const answers = [];
const times = [];
for (const question of read(questions)) {
  const before = performance.now();
  try {
    answers.push(ask(JSON.stringify(question)));
  } catch (error) {
    answers.push(`${error.type}`); // a fault of the engine: the same one is expected of CPython
  }
  times.push(performance.now() - before);
}
const version = python.runPython("import platform; platform.python_version()");
process.stdout.write(JSON.stringify({ version, started, times, answers }));
