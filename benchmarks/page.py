"""How fast the page is, in Chromium on loopback, and how much is downloaded.

    python -m benchmarks.page [--runtime .pyodide] [--check]

Needs the extra `browser`, Debian's chromium and, for the sizes as a host sends them, node. `--check` exits with 1 where
a bar is missed. Times are medians of a page that was visited before: its files come from the browser's cache, and
Python goes on from its memory of the first visit, whose own times are printed beside.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from advisor.site.files import page_files
from advisor.site.runtime import runtime_files
from advisor.site.server import PageServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
VISITS = 3
KNOBS = (
    *(("seq_len", "2048"), ("examples", "9000"), ("rank", "8")),
    *(("packing", "on"), ("dropout", "0.1"), ("epochs", "2")),
)
MODELS = ("qwen3-8b", "mistral-7b", "gemma-2-9b", "phi-4", "llama-3.2-3b")
FIRST = ("readers.json", "sw.js", "files.json", "licenses.txt")
"""What is not downloaded before the first answer: readers, with the first configuration, and lists."""
BROTLI = """
const zlib = require("zlib"), fs = require("fs"), c = zlib.constants;
const params = { [c.BROTLI_PARAM_LGWIN]: 24, [c.BROTLI_PARAM_QUALITY]: 11 };
const size = (one) => zlib.brotliCompressSync(fs.readFileSync(one), { params }).length;
console.log(process.argv.slice(1).map(size).join(" "));
"""


class Bar(NamedTuple):
    """A figure of the page, and what it should be at most."""

    what: str
    value: float
    most: float
    unit: str

    def line(self) -> str:
        """'first answer on screen: 0.12 s (bar: 0.5)'."""
        missed = "" if self.value <= self.most else "  missed"
        return f"{self.what}: {self.value:.3g} {self.unit} (bar: {self.most:g}){missed}"


def brotli_bytes(files: dict[str, bytes]) -> dict[str, int]:
    """The size of each file as a host sends it with brotli 11."""
    node = shutil.which("node")
    if node is None:
        raise SystemExit("benchmarks.page needs node to compress the files")
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        command = [node, "-e", BROTLI, *(str(Path(folder, name)) for name in files)]
        sizes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(files, map(int, sizes), strict=True))


class Shown(NamedTuple):
    """Seconds from a change of an input until what is seen first is on the screen, and until all of the answer is."""

    first_s: float
    whole_s: float


def asked(page: Page, name: str, value: str) -> Shown:
    """Change an input, without the wait for the next letter."""
    flag = f"--{name.replace('_', '-')}"
    script = """([name, value, flag]) => new Promise((resolve) => {
        const input = document.getElementById(name), command = document.getElementById("command");
        const answer = document.getElementById("answer"), start = performance.now();
        let first = 0;
        const look = () => {
            const seconds = (performance.now() - start) / 1000;
            if (!first && command.textContent.includes(flag)) first = seconds;
            if (first && !answer.hasAttribute("aria-busy")) return resolve([first, seconds]);
            requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
        input.value = value;
        input.dispatchEvent(new Event("change", { bubbles: true }));
    })"""
    shown = value if value != "on" else ""
    return Shown(*page.evaluate(script, [name, value, f"{flag} {shown}".strip()]))


def visits(page: Page, address: str) -> tuple[list[float], list[float]]:
    """Seconds to the first answer on the screen, and to the engine, of several visits."""
    first, ready = [], []
    for _ in range(VISITS + 1):
        start = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.locator("#verdict .verdict").wait_for()
        first.append(time.perf_counter() - start)
        page.wait_for_selector("body.live", timeout=180_000)
        ready.append(time.perf_counter() - start)
        time.sleep(2)
    print(f"the first visit: first answer {first[0]:.3g} s, engine ready {ready[0]:.3g} s")
    return first[1:], ready[1:]


def figures(files: dict[str, bytes]) -> list[Bar]:
    """All bars of the page."""
    from playwright.sync_api import sync_playwright

    with PageServer(files) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = chromium.new_context(service_workers="block").new_page()
        first, ready = visits(page, server.address)
        page.evaluate(
            "() => { window.longest = 0; new PerformanceObserver((list) => list.getEntries().forEach((one) => "
            "{ window.longest = Math.max(window.longest, one.duration) })).observe({ type: 'longtask' }) }"
        )
        asked(page, "gpu", "rtx4090")
        knobs = [asked(page, name, value) for name, value in KNOBS]
        models = [asked(page, "model", name) for name in MODELS]
        longest = float(page.evaluate("window.longest"))
        server.shutdown()
    for what, these in (("a knob", knobs), ("a model", models)):
        print(f"{what} changed: all of the answer after {median(one.whole_s for one in these) * 1e3:.3g} ms")
    sizes = brotli_bytes(files)
    download = sum(size for name, size in sizes.items() if name not in FIRST)
    print(f"the first dropped configuration, or training file, loads {sizes['readers.json'] / 1e6:.2f} MB more")
    return [
        Bar("first answer on screen", median(first), 0.5, "s"),
        Bar("engine ready, at a later visit", median(ready), 3, "s"),
        Bar("one knob changed", median(one.first_s for one in knobs) * 1e3, 60, "ms"),
        Bar("another model", median(one.first_s for one in models) * 1e3, 250, "ms"),
        Bar("longest task of the main thread", longest, 50, "ms"),
        Bar("download to the first answer of one's own, brotli", download / 1e6, 6, "MB"),
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", default=".pyodide", help="a folder with Pyodide's files")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed")
    given = parser.parse_args()
    bars = figures(page_files(runtime_files(given.runtime)))
    print("\n".join(bar.line() for bar in bars))
    return 1 if given.check and any(bar.value > bar.most for bar in bars) else 0


if __name__ == "__main__":
    sys.exit(main())
