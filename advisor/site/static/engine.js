// The engine from the page's side: one question at a time, and of those that wait only the newest of its kind.

export class Engine {
  #worker = null;
  #asked = new Map(); // those with the worker, by number
  #waiting = new Map(); // the newest question of each kind
  #number = 0;
  #again = false; // whether this worker took the place of one that failed

  /** `told`: called with {kind: "progress" | "ready" | "failed" | "reading", ...}. */
  constructor(told) {
    this.told = told;
    this.ready = false;
    this.#start();
  }

  /** The answer, an object; undefined where a newer question of its kind was asked before this one had its turn. */
  ask(question, file = null) {
    return new Promise((resolve) => {
      this.#waiting.get(question.kind)?.resolve(undefined);
      this.#waiting.set(question.kind, { question, file, resolve });
      this.#next();
    });
  }

  #start() {
    try {
      this.#worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    } catch {
      this.told({ kind: "failed" });
      return;
    }
    this.#worker.onmessage = ({ data }) => this.#heard(data);
    this.#worker.onerror = () => this.#failed();
  }

  #next() {
    if (!this.ready || this.#asked.size || !this.#waiting.size) return;
    const [kind, one] = this.#waiting.entries().next().value;
    this.#waiting.delete(kind);
    this.#asked.set(++this.#number, one);
    this.#worker.postMessage({ number: this.#number, question: one.question, file: one.file });
  }

  #heard(data) {
    if (data.kind === "answer") {
      this.#asked.get(data.number)?.resolve(data.answer);
      this.#asked.delete(data.number);
    } else {
      if (data.kind === "ready") {
        this.ready = true;
        data.again = this.#again;
      }
      if (data.kind === "failed") return this.#failed(data.why);
      this.told(data);
    }
    this.#next();
  }

  #failed(why = "") {
    const had = this.ready;
    this.ready = false;
    this.#worker.terminate();
    for (const one of this.#asked.values()) one.resolve({ ok: false, error: "The engine stopped at this question.", field: "", near: [] });
    this.#asked.clear();
    if (had) {
      this.#again = true; // it ran out of memory, say: the next question gets a fresh one
      this.#start();
    } else this.told({ kind: "failed", why });
  }
}
