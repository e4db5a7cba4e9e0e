"""Lines, headings and tables of at most 80 columns, printed as they are; of one style."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 80
NARROWEST = 40
"""Columns below which lines are no longer wrapped to the terminal's width: it would split numbers."""
ASCII_HEAD = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
"""Our tables' frame in ASCII; rich's own has lines between the columns."""


class _Console(Console):
    """A console that leaves a closed output pipe to the command, which has an exit code for it."""

    def on_broken_pipe(self) -> None:
        """Called while BrokenPipeError is handled; rich would end the process with code 1."""
        raise BrokenPipeError


def console_for(file: TextIO) -> Console:
    """A console of 40 to 80 columns that prints every text literally: no markup, no emoji, no highlighting."""
    console = _Console(file=file, markup=False, emoji=False, highlight=False)
    console.width = min(max(console.width, NARROWEST), WIDTH) if console.width else WIDTH
    return console


def print_table(file: TextIO, table: Table) -> None:
    """A table keeps its 80 columns: a narrower terminal wraps its lines, where rich would cut the numbers off."""
    console = console_for(file)
    console.width = WIDTH
    console.print(table)


def new_table(*, tight: bool = False, ascii_only: bool = False) -> Table:
    """An empty table in our style: a line under its header and no other rules, one or two spaces between columns."""
    frame = ASCII_HEAD if ascii_only else box.SIMPLE_HEAD
    return Table(box=frame, show_edge=False, pad_edge=False, padding=(0, 0 if tight else 1, 0, 0))


def heading(console: Console, text: str) -> None:
    """An empty line and a title."""
    console.print()
    console.print(Text(text, style="bold"))


def say(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    """Print `text` wrapped, continuation lines indented by `indent`."""
    for line in wrapped(console, text, style, indent):
        console.print(line, soft_wrap=True)


def wrapped(console: Console, text: str, style: str = "", indent: int = 0) -> list[Text]:
    """The lines that `say` prints."""
    lines = []
    for number, line in enumerate(Text(text, style=style).wrap(console, console.width - indent)):
        line.rstrip()
        lines.append(Text(" " * indent if number else "") + line)
    return lines
