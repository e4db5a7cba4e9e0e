"""Lines, headings and tables of at most 80 columns, printed as they are; short texts that several pages share."""

from __future__ import annotations

import os
from typing import TextIO

from advisor.answer import Change
from advisor.render.grid import ASCII_RULE, RULE, Table
from advisor.render.wrapping import CONTROLS, wrap

WIDTH = 80
NARROWEST = 40
"""Columns below which lines are no longer wrapped to the terminal's width: it would split numbers."""
STYLES = {"bold": "\x1b[1m", "dim": "\x1b[2m"}
_PLAIN = "\x1b[0m"


class Console:
    """Prints lines literally, in bold or dim where `file` is a terminal that can show it."""

    def __init__(self, file: TextIO) -> None:
        """The width is 40 to 80 columns, as the terminal has them."""
        self.file = file
        self.width = min(max(_terminal_columns(file), NARROWEST), WIDTH)
        self.ascii_only = not (getattr(file, "encoding", None) or "utf-8").lower().startswith("utf")
        self.styled = _shows_styles(file)

    def print(self, line: str = "", style: str = "") -> None:
        """One line, which may be longer than the console is wide."""
        self.file.write(self._dressed(line.translate(CONTROLS), style) + "\n")

    def print_table(self, table: Table) -> int:
        """A table, its header in bold; the number of lines."""
        header, body = table.lines(self.width)
        for line in header:
            self.print(line, "bold")
        for line in body:
            self.print(line)
        return len(header) + len(body)

    def _dressed(self, line: str, style: str) -> str:
        return f"{STYLES[style]}{line}{_PLAIN}" if style and line and self.styled else line


def _is_dumb() -> bool:
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def _terminal_columns(file: TextIO) -> int:
    """The columns of the terminal that the command runs in, whichever of its streams is redirected; else 80."""
    if _is_dumb() and file.isatty():
        return WIDTH
    told = os.environ.get("COLUMNS", "")
    if told.isdigit():
        return int(told) or WIDTH
    for stream in range(3):
        try:
            return os.get_terminal_size(stream).columns or WIDTH
        except (OSError, ValueError):  # no terminal, or closed
            continue
    return WIDTH


def _shows_styles(file: TextIO) -> bool:
    """Whether escape sequences are shown as styles: in a terminal, or where FORCE_COLOR promises it (force-color.org).

    Windows' old console does not know them; its new Terminal sets WT_SESSION.
    """
    forced = os.environ.get("FORCE_COLOR")
    if not (file.isatty() if forced is None else forced) or _is_dumb():
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ


def console_for(file: TextIO) -> Console:
    """A console that prints to `file`."""
    return Console(file)


def print_table(file: TextIO, table: Table) -> None:
    """A table keeps its 80 columns: a narrower terminal wraps its lines, and no number is cut off."""
    console = Console(file)
    console.width = WIDTH
    console.print_table(table)


def new_table(*, tight: bool = False, ascii_only: bool = False) -> Table:
    """An empty table in our style: a line under its header and no other rules, one or two spaces between columns."""
    return Table(gap=1 if tight else 2, rule=ASCII_RULE if ascii_only else RULE)


def heading(console: Console, text: str) -> None:
    """An empty line and a title."""
    console.print()
    for line in wrap(text, console.width):
        console.print(line, "bold")


def say(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    """Print `text` wrapped, continuation lines indented by `indent`."""
    for line in wrapped(console, text, indent):
        console.print(line, style)


def wrapped(console: Console, text: str, indent: int = 0) -> list[str]:
    """The lines that `say` prints."""
    first, *others = wrap(text, console.width - indent)
    return [first, *(" " * indent + line for line in others)]


def value_text(value: object) -> str:
    """A knob's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def price_text(change: Change) -> str:
    """'--rank 32: +0.21 GiB, +1.45 s; changes the training'."""
    return change.text + ("; changes the training" if change.changes_training else "")
