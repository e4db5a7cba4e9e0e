// Python with the engine in it: the same in the page's worker and under Node, where tests compare its answers.

const LOCK = {
  info: { abi_version: "2026_0", arch: "wasm32", platform: "emscripten_5_0_3", python: "3.14.2", version: "314.0.7" },
  packages: {}, // none is ever loaded: the engine needs the standard library alone
};
const START = `
import os, sys
os.environ["FINETUNE_ADVISOR_DATA"] = "/data"
sys.dont_write_bytecode = True
sys.path.insert(0, "/engine")
import gc
gc.disable() # the worker collects while nobody waits
from advisor.page import dropped
from advisor.page.ask import ask
gc.freeze()
`;

/**
 * Loads Python and the engine. `files`: texts by path, or a promise of them; `options`: of loadPyodide. `memory`: what an
 * earlier start returned as `memory`, bytes: Python goes on from there. With `kept`, this start returns its own.
 */
export async function startPython(loadPyodide, options, files, { memory = null, kept = false } = {}) {
  const how = memory ? { _loadSnapshot: memory } : { _makeSnapshot: kept };
  const python = await loadPyodide({ ...options, ...how, lockFileContents: LOCK });
  const size = () => python._module.HEAP8.length;
  const first = size();
  addFiles(python, await files);
  if (!memory) python.runPython(START);
  const fits = size() === first; // a start has no more memory than it begins with
  const taken = kept && !memory && fits ? python.makeMemorySnapshot() : null; // before Python holds anything of the page's
  const begun = memory ? "from kept memory" : "anew";
  return { python, begun, memory: taken, ask: python.globals.get("ask"), tidy: () => python.runPython("gc.collect()") };
}

/** Puts further files of the engine beside those that are there. */
export function addFiles(python, files) {
  const folders = new Set(Object.keys(files).map((path) => path.slice(0, path.lastIndexOf("/"))));
  for (const folder of folders) python.FS.mkdirTree(`/engine/${folder}`);
  for (const [path, text] of Object.entries(files)) python.FS.writeFile(`/engine/${path}`, text);
  python.runPython("import importlib; importlib.invalidate_caches()");
}
