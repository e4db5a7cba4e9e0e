"""The tree of exceptions in advisor/errors.py is the one that the code makes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import advisor
from advisor import errors
from advisor.errors import AdvisorError, InputError
from tests.fakes import MODEL, card

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("advisor", "calibrate") for path in (ROOT / package).rglob("*.py"))
LINE = re.compile(r"^(?P<branch>[│ ]*[├└]── )(?P<name>\w+) {2,}(?P<says>\S.*)$")


def drawn(text: str) -> dict[str, str]:
    """Each name under the root with the name it hangs from."""
    above = ["AdvisorError"]
    found: dict[str, str] = {}
    for row in filter(None, map(LINE.match, text.splitlines())):
        depth = len(row["branch"]) // 4
        above = [*above[:depth], row["name"]]
        found[row["name"]] = above[depth - 1]
    return found


def defined() -> dict[str, str]:
    """The same, read from the source: some modules cannot be imported without torch."""
    classes = {
        node.name: base.id
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Name)
    }

    def is_ours(name: str) -> bool:
        return name == AdvisorError.__name__ or (name in classes and is_ours(classes[name]))

    return {name: base for name, base in classes.items() if name != "AdvisorError" and is_ours(name)}


def test_the_tree_is_drawn_as_it_is() -> None:
    assert len(SOURCES) > 150
    assert errors.__doc__
    assert drawn(errors.__doc__) == defined()


@pytest.mark.parametrize(
    "call",
    [
        lambda: advisor.Recipe(method="nope"),  # type: ignore[arg-type]
        lambda: advisor.find_model(None),  # type: ignore[arg-type]
        lambda: advisor.find_gpus(24),  # type: ignore[arg-type]
        lambda: advisor.parameter_count("llama-8b"),  # type: ignore[arg-type]
        lambda: advisor.estimate("llama-8b", 1, 2, 3),  # type: ignore[arg-type]
        lambda: advisor.estimate(MODEL, advisor.Recipe(method="lora"), advisor.Workload(), card(24), 2),  # type: ignore[arg-type]
        lambda: advisor.Workload(seq_len=10, mean_seq_len=100),
        lambda: advisor.advise("llama-8b", "24GB", wrong=3),
    ],
)
def test_the_library_raises_its_own_errors(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()


def test_exit_codes_stand_where_they_are_not_two() -> None:
    """Among those that can be seen without calibrate's libraries."""
    assert errors.__doc__
    for one in (AdvisorError, *AdvisorError.__subclasses__()):
        (line,) = [row for row in errors.__doc__.splitlines() if re.search(rf"(^|── ){one.__name__} ", row)]
        said = re.search(r"\(exit (\d)", line)
        assert (int(said[1]) if said else 2) == one.exit_code, line
