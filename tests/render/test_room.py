"""What fits into a number of lines: the first item of every section before any second one."""

from __future__ import annotations

import io

import pytest

from advisor.render.console import console_for
from advisor.render.room import Section, fitted

CONSOLE = console_for(io.StringIO())
WHY = Section("Why", ("one", "two", "three"))
NOTES = Section("Notes", ("long " * 40, "short"))
WARNINGS = Section("Warnings", ("first", "second"), first=True)


def shown(room: int, *sections: Section) -> tuple[dict[str, tuple[str, ...]], int]:
    kept, left_out = fitted(CONSOLE, sections, room)
    return {section.title: section.items for section in kept}, left_out


def test_all_of_it_where_there_is_room() -> None:
    assert shown(100, WHY, NOTES, WARNINGS) == ({s.title: s.items for s in (WHY, NOTES, WARNINGS)}, 0)


def test_the_first_of_each_comes_first_and_all_warnings_before() -> None:
    assert shown(7, WHY, WARNINGS) == ({"Why": ("one",), "Warnings": ("first", "second")}, 2)


def test_a_long_item_makes_room_for_a_short_one() -> None:
    long, last = NOTES.items
    assert shown(6, NOTES) == ({"Notes": (long, last)}, 0)
    assert shown(4, NOTES) == ({"Notes": (last,)}, 1)


@pytest.mark.parametrize("room", [-5, 0, 2])
def test_no_room(room: int) -> None:
    assert shown(room, WHY, NOTES) == ({}, 5)


@pytest.mark.parametrize("room", range(30))
def test_never_more_lines_than_there_are(room: int) -> None:
    kept, _ = fitted(CONSOLE, (WHY, NOTES, WARNINGS), room)
    lines = sum(2 + sum(-(-len(f"- {text}") // 78) for text in section.items) for section in kept)
    assert lines <= max(room, 0)
