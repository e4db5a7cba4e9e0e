"""All files of the page by name, as a static host gives them out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path

import advisor
from advisor.charts import STYLE
from advisor.export import TARGETS
from advisor.page.answered import advised, answer_of
from advisor.page.flags import values_of
from advisor.page.markup import copied
from advisor.page.sections import PARTS
from advisor.page.sheet import form_html
from advisor.page.trust import trust_html
from advisor.site.beside import beside
from advisor.site.engine import engine_text, readers_text
from advisor.site.licenses import licenses_text
from advisor.site.runtime import SOURCE, VERSION

USUAL = {"model": "llama-8b", "gpu": "24GB", "examples": "3000"}
"""The question whose answer the page holds before anything is loaded."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
"""What the page may load, and from where: from its own place alone, and no code that stands in a document."""
WRITER = "advise page"
LIST = "files.json"
"""Which files are the page's; by it a folder is known as one that was written here."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".zip": "application/zip",
}
"""Media types by the ending of a file's name; a browser refuses scripts and WebAssembly under another."""
_STATIC = Path(__file__).parent / "static"
_CACHING = ("sw.js", "worker.js")
"""Scripts that name the cache of this version."""
_FILLED = ("index.html", *_CACHING)
_COUNTED = (".wasm", ".zip", "engine.json")
"""What the progress bar counts: all but modules, which the browser loads by itself."""


def page_files(runtime: Mapping[str, bytes]) -> dict[str, bytes]:
    """The page with these files of Pyodide: name to content; the same for the same package and runtime."""
    own = {path.name: path.read_bytes() for path in sorted(_STATIC.iterdir()) if path.name not in _FILLED}
    own["style.css"] += STYLE.encode()
    made = {"engine.json": engine_text(), "readers.json": readers_text(), "licenses.txt": licenses_text()}
    files = {**own, **{name: text.encode() for name, text in made.items()}, **runtime}
    loaded = sum(len(data) for name, data in files.items() if name.endswith(_COUNTED))
    files["index.html"] = _index(loaded).encode()
    templates = {name: (_STATIC / name).read_text(encoding="utf-8") for name in _CACHING}
    content = b"".join(name.encode() + files[name] for name in sorted(files)) + "".join(templates.values()).encode()
    digest = hashlib.sha256(content).hexdigest()[:16]
    values = {"cache": f"advise-{digest}", "files": json.dumps(["./", *sorted({*files, "worker.js"} - {"index.html"})])}
    files |= {name: _filled(text, values).encode() for name, text in templates.items()}
    listed = {"written_by": WRITER, "version": advisor.__version__, "files": sorted((*files, LIST))}
    files[LIST] = json.dumps(listed, indent=1).encode()
    return dict(sorted(files.items()))


def _index(loaded: int) -> str:
    shown = _usual_answer()
    values = {
        "policy": escape(POLICY),
        "bytes": str(loaded),
        "form": form_html(USUAL),
        "copy_command": copied("command", "the command"),
        "targets": "".join(f"<option>{escape(target)}</option>" for target in TARGETS),
        "version": advisor.__version__,
        "pyodide": VERSION,
        "pyodide_source": SOURCE,
        **shown,
    }
    return _filled((_STATIC / "index.html").read_text(encoding="utf-8"), values)


@cache
def _usual_answer() -> dict[str, str]:
    """The parts of the answer to the usual question, its command and the published rows nearest to it."""
    values = values_of(USUAL)
    found = advised(values)
    trust = trust_html(answer_of(values), beside())
    return {**{part: found["parts"][part] for part in PARTS}, "command": escape(found["command"]), "trust": trust}


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text
