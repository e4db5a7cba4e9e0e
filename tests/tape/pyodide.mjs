// node tests/tape/pyodide.mjs FOLDER ROOT: runs step_digests.py of the tree at ROOT under the Python of the npm package
// pyodide that is installed in FOLDER.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, root] = process.argv.slice(2);
const require = createRequire(pathToFileURL(folder + "/"));
const { loadPyodide } = await import(pathToFileURL(require.resolve("pyodide/pyodide.mjs")));
const python = await loadPyodide();
python.mountNodeFS("/tree", root);
await python.runPythonAsync(`
import runpy, sys
sys.dont_write_bytecode = True
runpy.run_path("/tree/tests/tape/step_digests.py", run_name="__main__")
`);
