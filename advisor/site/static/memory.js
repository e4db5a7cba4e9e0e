// Python's memory as it was when the engine was ready, kept in the browser, so that a later visit begins with it. It holds
// no question: it is taken before the first one. Another version of the page, or of the browser, begins anew.

const NAME = "python.memory";

export class KeptMemory {
  #cache; // a promise of the cache; of null where the browser keeps nothing
  #place;

  /** `cache`: the name of the cache of this version's files; `folder`: the page's, a URL. */
  constructor(cache, folder) {
    this.#place = new URL(NAME, folder);
    this.#cache = (self.caches?.open(cache) ?? Promise.resolve(null)).catch(() => null);
  }

  /** The memory, bytes; null where none is kept. */
  async read() {
    try {
      const found = await (await this.#cache)?.match(this.#place);
      if (found?.headers.get("x-browser") !== navigator.userAgent) return null;
      return new Uint8Array(await found.arrayBuffer());
    } catch {
      return null;
    }
  }

  /** Keeps it; a browser without room for it does without. */
  async write(bytes) {
    try {
      const headers = { "x-browser": navigator.userAgent, "content-type": "application/octet-stream" };
      await (await this.#cache)?.put(this.#place, new Response(bytes, { headers }));
    } catch {
      // the next visit starts Python again
    }
  }

  /** Forgets it. */
  async drop() {
    await (await this.#cache)?.delete(this.#place).catch(() => false);
  }
}
