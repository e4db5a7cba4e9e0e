"""Which of the things to say fit into a number of lines: the most important ones, each as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from advisor.render.console import wrapped


class Section(NamedTuple):
    """A title and its items, the most important first."""

    title: str
    items: tuple[str, ...]
    first: bool = False
    """Whether all its items come before the second one of another section."""


def fitted(console: Console, sections: Sequence[Section], room: int) -> tuple[list[Section], int]:
    """The sections with the items that fit into `room` lines, in their order, and the number of items left out.

    Items are taken in turns, the first one of every section before any second one. An item that is too long for what
    is left makes room for shorter ones behind it.
    """
    turns = sorted(
        ((0 if section.first else turn, number, turn) for number, section in enumerate(sections)
         for turn in range(len(section.items))),
    )  # fmt: skip
    taken: set[tuple[int, int]] = set()
    for _, number, turn in turns:
        is_new = all(other != number for other, _ in taken)
        lines = len(wrapped(console, f"- {sections[number].items[turn]}", indent=2)) + (2 if is_new else 0)
        if lines <= room:
            taken.add((number, turn))
            room -= lines
    kept = [
        section._replace(items=tuple(text for turn, text in enumerate(section.items) if (number, turn) in taken))
        for number, section in enumerate(sections)
    ]
    return [section for section in kept if section.items], len(turns) - len(taken)
