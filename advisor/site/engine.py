"""The engine as the page loads it: this very package's files in JSON documents, path by path.

Documents of text, for every static host compresses those as they are sent, which many do not with archives.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import yaml

import advisor
import profiles
from advisor.page.trust import FILE
from advisor.site.beside import beside

_NOT_THERE = (
    *("advisor/cli.py", "advisor/command.py", "advisor/gate.py", "advisor/lists.py", "advisor/options.py"),
    *("advisor/pages.py", "advisor/__main__.py", "advisor/render/", "advisor/site/", "advisor/validation/"),
    *(
        "advisor/mcp/",
        "advisor/charts/notebook.py",
        "advisor/catalog/index.py",
        "advisor/catalog/gpu_file.py",
        "advisor/catalog/nvml.py",
    ),
    *("advisor/costs/machine_code.py", "advisor/dataset/parquet.py", "profiles/measured/"),
)
"""What a page has no use for: the terminal, this folder, published rows as they were typed, other machines' files."""
_LATER = ("advisor/configs/", "advisor/advice/check.py", "advisor/page/judged.py", "advisor/export/")
_AT_ONCE = "advisor/export/__init__.py"
"""What reads and writes training configurations is loaded with the first of them, as PyYAML; but for their names."""


@cache
def _files() -> dict[str, str]:
    """The text of every file that travels, by its path from the packages' folder, in order."""
    found = {}
    for package in (advisor, profiles):
        folder = Path(package.__file__ or "").parent
        for path in sorted(folder.rglob("*")):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            if path.suffix in (".py", ".json") and not name.startswith(_NOT_THERE):
                found[name] = path.read_text(encoding="utf-8")
    return found


def engine_text() -> str:
    """What every question needs."""
    files = {name: text for name, text in _files().items() if not _is_later(name)}
    return _document({**files, "/".join(("profiles", *FILE)): beside_text()})


def readers_text() -> str:
    """What reads dropped configurations and writes training files, loaded with the first of them."""
    folder = Path(yaml.__file__ or "").parent
    files = {name: text for name, text in _files().items() if _is_later(name)}
    library = {f"yaml/{path.name}": path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    return _document({**files, **library})


def _is_later(name: str) -> bool:
    return name.startswith(_LATER) and name != _AT_ONCE


def _document(files: dict[str, str]) -> str:
    return json.dumps(files, ensure_ascii=False, separators=(",", ":"))


@cache
def beside_text() -> str:
    """Published figures with the engine's own for the same runs, computed now, as the page's table has them."""
    return json.dumps(beside(), ensure_ascii=False, separators=(",", ":"))
