"""The page's files, made once, and a browser that looks at them, where both are at hand."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from advisor.site.files import page_files
from advisor.site.runtime import runtime_files
from advisor.site.server import PageServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
NODE_FOLDER = ROOT / ".pyodide"
PICTURES = ROOT / "build" / "page-pictures"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def runtime() -> dict[str, bytes]:
    if not (NODE_FOLDER / "node_modules" / "pyodide").is_dir():
        pytest.skip("Pyodide is not installed: make .pyodide/installed")
    return runtime_files(str(NODE_FOLDER))


@pytest.fixture(scope="session")
def files(runtime: dict[str, bytes]) -> dict[str, bytes]:
    return page_files(runtime)


@pytest.fixture(scope="session")
def server(files: dict[str, bytes]) -> Iterator[PageServer]:
    with PageServer(files) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()
