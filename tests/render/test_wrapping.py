"""Lines that fit, with every word in them, as rich wraps the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from advisor.render.wrapping import cells_of, wrap

CONSOLE = Console(width=80)
PROSE = st.lists(st.text("ab-._/,", min_size=1, max_size=12), max_size=30).map(" ".join)


@given(PROSE, st.integers(12, 40))
def test_words_stay_whole_and_lines_are_full(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert " ".join(lines).split() == text.split()
    assert all(len(line) <= width for line in lines)
    assert lines == [str(line).rstrip() for line in Text(text).wrap(CONSOLE, width)]


@given(st.text("ab 漢字é\u0301\t\n", max_size=80), st.integers(2, 20))
def test_lines_fit_and_lose_no_character(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cells_of(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one  two   three", ["one  two", "three"]),
        ("  - one two three", ["  - one", "two three"]),
        ("a 123456789012345678 b", ["a", "1234567890", "12345678 b"]),
        ("one\n\ntwo", ["one", "", "two"]),
        ("bell\x07 back\x08", ["bell back"]),
    ],
)
def test_lines_of_ten(text: str, lines: list[str]) -> None:
    assert wrap(text, 10) == lines


@pytest.mark.parametrize(("text", "cells"), [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("█▓░│▶─×", 7), ("🦙", 2)])
def test_cells(text: str, cells: int) -> None:
    assert cells_of(text) == cells
