// The question as the page's address holds it: #v=1&model=llama-8b&gpu=24GB&rank=16.

const VERSION = "1";
const LONGEST = 500; // characters of a value; a link with more is not one of ours

/** What an address says: flags by knob, and one sentence about what was left out of it. */
export function readAddress(fragment, known) {
  const flags = {};
  const text = fragment.replace(/^#/, "");
  if (!text.includes("=")) return { flags, said: "" };
  let pairs;
  try {
    pairs = [...new URLSearchParams(text)];
  } catch {
    return { flags, said: "The link could not be read, so the usual question is asked." };
  }
  const version = pairs.find(([name]) => name === "v")?.[1];
  if (version !== VERSION) {
    return { flags, said: "The link is of another version of this page, so the usual question is asked." };
  }
  const strange = [];
  for (const [name, value] of pairs) {
    if (name === "v") continue;
    if (known.has(name) && value.length <= LONGEST && !/[\u0000-\u001f\u007f]/.test(value)) flags[name] = value;
    else strange.push(name.slice(0, 40));
  }
  const said = strange.length ? `Left out of the link, as this page does not know it: ${strange.slice(0, 5).join(", ")}.` : "";
  return { flags, said };
}

/** The fragment that holds these flags. */
export function addressOf(flags) {
  const pairs = new URLSearchParams({ v: VERSION });
  for (const [name, value] of Object.entries(flags)) if (value) pairs.set(name, value);
  return `#${pairs}`;
}
