"""The licenses of what a page gives out: its own, and those of the parts that others made."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from advisor.site.runtime import SOURCE, VERSION

_OWN = "finetune-advisor"
_NOT_HERE = "The license is that of the package: https://pypi.org/project/{}/"


def licenses_text() -> str:
    """One document: who made each part, under which license, and where its source is."""
    mozilla = (Path(__file__).parent / "MPL-2.0.txt").read_text(encoding="utf-8")
    parts = (
        (f"{_OWN}: the page and engine.json. MIT license.", _text_of(_OWN)),
        ("PyYAML, in readers.json, unchanged. MIT license. Source: https://github.com/yaml/pyyaml", _text_of("PyYAML")),
        (
            f"Pyodide {VERSION}: pyodide.mjs, pyodide.asm.mjs, pyodide.asm.wasm and python_stdlib.zip, unchanged, as "
            f"npm has them. Source: {SOURCE}. It contains Python (Python Software Foundation License, "
            "https://docs.python.org/3/license.html) and parts by Emscripten (MIT, https://github.com/emscripten-core/"
            "emscripten/blob/main/LICENSE). Mozilla Public License 2.0.",
            mozilla,
        ),
    )
    line = "\n\n" + "=" * 78 + "\n\n"
    return line.join(f"{title}\n\n{text.strip()}\n" for title, text in parts)


def _text_of(name: str) -> str:
    """The license that an installed package came with."""
    checkout = Path(__file__).resolve().parents[2] / "LICENSE"
    if name == _OWN and checkout.is_file():
        return checkout.read_text(encoding="utf-8")
    try:
        files = distribution(name).files or ()
    except PackageNotFoundError:
        files = ()
    beside = (file for file in files if any(part.endswith(".dist-info") for part in file.parts))
    found = next((file for file in beside if file.name.upper().startswith("LICENSE")), None)
    return found.read_text() if found is not None else _NOT_HERE.format(name)
