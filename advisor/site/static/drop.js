// Files that a person drops: which question each is, and nothing of them leaves this tab.

const MIB = 1024 ** 2;
export const MOST_DATA = 100 * MIB; // a data file: it is read piece by piece, at some MiB a second
const MOST_TEXT = 4 * MIB; // a configuration, a script, a config.json
const DATA = [".jsonl", ".ndjson", ".csv", ".txt", ".gz"];
const RUNS = [".yaml", ".yml", ".py", ".ipynb", ".sh"];

const ending = (name) => name.slice(name.lastIndexOf(".")).toLowerCase();
const size = (bytes) => `${Math.ceil(bytes / MIB).toLocaleString("en-US")} MiB`;

/** {kind, name, text} or {kind: "data", name, file}; {error} for what is not read, in one sentence. */
export async function questionOf(file) {
  const name = file.name.replace(/[^\w.+ -]/g, "_").slice(-100);
  const end = ending(name);
  if (end === ".parquet") return { error: `${name}: Parquet is not read here; run advise data on it, or drop it as .jsonl.` };
  if (DATA.includes(end) || (end === ".json" && (await isList(file)))) return dataOf(file, name);
  if (end !== ".json" && !RUNS.includes(end)) {
    return { error: `${name}: not a kind of file that is read here (known: ${[...RUNS, ".json", ...DATA].join(", ")}).` };
  }
  if (file.size > MOST_TEXT) {
    return { error: `${name} has ${size(file.size)}, and a configuration is read up to ${size(MOST_TEXT)}.` };
  }
  const text = await file.text();
  return end === ".json" && isModel(text) ? { kind: "config", name, text } : { kind: "check", name, text };
}

function dataOf(file, name) {
  if (file.size > MOST_DATA) {
    const most = size(MOST_DATA);
    return { error: `${name} has ${size(file.size)}, and data is read here up to ${most}: run advise data on it, or drop a part of it.` };
  }
  return { kind: "data", name, file };
}

/** Whether a JSON file begins as a list of rows. */
async function isList(file) {
  return (await file.slice(0, 4096).text()).trimStart().startsWith("[");
}

function isModel(text) {
  try {
    const found = JSON.parse(text);
    return typeof found === "object" && found !== null && ("model_type" in found || "architectures" in found);
  } catch {
    return false;
  }
}
