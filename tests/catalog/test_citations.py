"""The lines that the table of architectures cites stand in the installed transformers and peft."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from advisor import architectures

pytest.importorskip("transformers")

CITATION = re.compile(r"# (?:(peft|lit_gpt)[,/] ?)?([\w/]+\.py)(?:, ([\w.]+))?: (.*)$", re.MULTILINE)
TABLES = sorted(Path(architectures.__file__).parent.glob("*.py"))
CITED = [found for table in TABLES for found in CITATION.findall(table.read_text()) if found[0] != "lit_gpt"]


def folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@lru_cache(maxsize=64)
def text_of(package: str, file: str) -> str:
    """The file's text; a modeling_x.py stands in the folder of its model."""
    root = folder_of(package)
    places = [root / file, *root.glob(f"models/*/{file}")]
    (path,) = [place for place in places if place.is_file()]
    return path.read_text()


def part_of(text: str, names: str) -> str:
    """The source of a class, a function, a method or a constant; all of it for ''."""
    node: ast.AST = ast.parse(text)
    for name in names.split(".") if names else ():
        body: list[ast.stmt] = getattr(node, "body", [])
        node = next(
            one
            for one in body
            if getattr(one, "name", "") == name
            or (isinstance(one, ast.Assign) and name in {getattr(target, "id", "") for target in one.targets})
        )
    return ast.get_source_segment(text, node) or text


def missing(package: str, file: str, names: str, words: str) -> list[str]:
    """Fragments of a citation that its source lacks; '...', 'after' and 'without' stand between fragments."""
    source = "".join(part_of(text_of(package or "transformers", file), names).split())
    shown = words.partition(" without ")[0]
    fragments = ["".join(part.split()).strip(",()") for part in re.split(r"\.\.\.| after ", shown)]
    return [part for part in fragments if part not in source]


def test_citations_are_found() -> None:
    assert len(CITED) >= 80


@pytest.mark.parametrize(("package", "file", "names", "words"), CITED)
def test_what_is_cited_is_there(package: str, file: str, names: str, words: str) -> None:
    assert missing(package, file, names, words) == []


def test_a_false_citation_is_found() -> None:
    assert missing("", "modeling_phi3.py", "apply_rotary_pos_emb", "q_rot * sin ... q_pass") == ["q_rot*sin"]
    with pytest.raises(StopIteration):
        missing("", "modeling_phi3.py", "apply_rotary", "q_rot")
