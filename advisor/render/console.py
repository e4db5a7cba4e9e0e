"""Lines, headings and tables of at most 80 columns, printed as they are."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 80


class _Console(Console):
    """A console that leaves a closed output pipe to the command, which has an exit code for it."""

    def on_broken_pipe(self) -> None:
        """Called while BrokenPipeError is handled; rich would end the process with code 1."""
        raise BrokenPipeError


def console_for(file: TextIO) -> Console:
    """A console of at most 80 columns that prints every text literally: no markup, no emoji, no highlighting."""
    console = _Console(file=file, markup=False, emoji=False, highlight=False)
    console.width = min(console.width, WIDTH)
    return console


def print_table(file: TextIO, table: Table) -> None:
    """A table keeps its 80 columns: a narrower terminal wraps its lines, where rich would cut the numbers off."""
    console = console_for(file)
    console.width = WIDTH
    console.print(table)


def new_table() -> Table:
    """An empty table in our style: a line under its header and no other rules."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def heading(console: Console, text: str) -> None:
    """An empty line and a title."""
    console.print()
    console.print(Text(text, style="bold"))


def say(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    """Print `text` wrapped, continuation lines indented by `indent`."""
    lines = Text(text, style=style).wrap(console, console.width - indent)
    for number, line in enumerate(lines):
        line.rstrip()
        console.print(Text(" " * indent if number else "") + line, soft_wrap=True)


def value_text(value: object) -> str:
    """A knob's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
