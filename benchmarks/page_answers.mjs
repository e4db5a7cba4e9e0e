// node benchmarks/page_answers.mjs RUNTIME ENGINE QUESTIONS: answers questions under Pyodide as the page does.
// RUNTIME: a folder with Pyodide's files; ENGINE: a folder with engine.json and readers.json; QUESTIONS: a JSON list.
// Prints one JSON object: Python's version, the answers, and the milliseconds that each took. Every other answer is that
// of a Python that goes on from the memory of the first, as a second visit does.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { startPython } from "../advisor/site/static/python.js";

const [runtime, engine, questions] = process.argv.slice(2);
const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const { loadPyodide } = await import(pathToFileURL(resolve(runtime, "pyodide.mjs")));
const start = performance.now();
const files = { ...read(`${engine}/engine.json`), ...read(`${engine}/readers.json`) };
const options = { indexURL: `${resolve(runtime)}/` };
const { python, ask, memory } = await startPython(loadPyodide, options, files, { kept: true });
const started = performance.now() - start;
const second = await startPython(loadPyodide, options, files, { memory });
const answers = [];
const times = [];
for (const [number, question] of read(questions).entries()) {
  const before = performance.now();
  try {
    answers.push((number % 2 ? second.ask : ask)(JSON.stringify(question)));
  } catch (error) {
    answers.push(`${error.type}`); // a fault of the engine: the same one is expected of CPython
  }
  times.push(performance.now() - before);
}
const version = python.runPython("import platform; platform.python_version()");
process.stdout.write(JSON.stringify({ version, started, times, answers }));
