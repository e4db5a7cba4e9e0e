"""The table of methods: figures, a bar of memory against the card's line, and each method by one recipe.

Idea: the bar takes the columns that the figures leave; a narrower terminal gets fewer columns, never cut-off numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from advisor.advice.phrases import batch_text, fits_column, total_text
from advisor.answer import Advice, Candidate
from advisor.render.console import new_table
from advisor.rules.wording import signed_gib
from advisor.units import format_gib

NARROWEST_BAR, WIDEST_BAR = 10, 24
_LINE_AT = 0.75
"""Where the card's line is, as a share of the bar: what does not fit has room beyond it."""


class Marks(NamedTuple):
    """The characters of a bar."""

    least: str
    plan: str
    at_most: str
    card: str
    beyond: str


BLOCKS = Marks("█", "▓", "░", "│", "▶")
ASCII = Marks("#", "=", "-", "|", ">")


class Column(NamedTuple):
    """One column; of several that are too wide together, the one with the highest rank is left out first."""

    title: str
    cells: tuple[str, ...]
    right: bool = False
    rank: int = 0

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        return max(map(len, (*self.title.split("\n"), *self.cells)))


def candidate_table(advice: Advice, width: int, marks: Marks) -> tuple[Table, bool]:
    """One row for each method, at most `width` columns wide, and whether there was room for the bars."""
    columns = _columns(advice)
    while _width(columns) > width and any(column.rank for column in columns):
        columns.remove(max(columns, key=lambda column: column.rank))
    room = min(width - _width(columns) - 1, WIDEST_BAR)
    bars = room >= NARROWEST_BAR
    if bars:
        after = next(i for i, column in enumerate(columns) if column.title.startswith("plan")) + 1
        columns.insert(after, Column("memory", tuple(_bar(advice, row, room, marks) for row in advice.candidates)))
    table = new_table(tight=True, ascii_only=marks is ASCII)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table, bars


def _width(columns: list[Column]) -> int:
    return sum(column.width + 1 for column in columns) - 1


def _columns(advice: Advice) -> list[Column]:
    """All columns of figures; without a recommendation there is nothing to compare with."""
    rows = advice.candidates
    needed = [row.memory.needed_bytes for row in rows]
    least = tuple(format_gib(row.least.memory.needed_bytes.likely) for row in rows)
    columns = [
        Column("\nmethod", tuple(_name(advice, row) for row in rows)),
        Column("least\nGiB", least, True, rank=2),
        Column("plan GiB\n(at most)", tuple(f"{format_gib(n.likely)} ({format_gib(n.high)})" for n in needed), True),
        Column("\nfits", tuple(fits_column(row, advice.gpu.memory_bytes) for row in rows)),
        Column("\nbatch", tuple(batch_text(row.recipe) for row in rows), True, rank=3),
        Column("\ntotal", tuple(total_text(row) for row in rows), True),
    ]
    if advice.recommendation is not None and len(rows) > 1:
        title = f"at {advice.recommendation.method}'s recipe:\nmemory, time"
        columns.append(Column(title, tuple(map(_compared, rows)), rank=4))
    return columns


def _name(advice: Advice, row: Candidate) -> str:
    """The method, with a star if it is the recommended one."""
    chosen = advice.recommendation is not None and advice.recommendation.method == row.method
    return ("* " if chosen else "  ") + row.method


def _compared(row: Candidate) -> str:
    """'-6.1 GiB, 0.93x'."""
    if row.compared is None:
        return "-"
    memory = signed_gib(row.compared.memory_bytes).replace("same memory", "same")
    ratio = row.compared.time_ratio
    return memory if ratio is None else f"{memory}, {ratio:.2f}x"


def _bar(advice: Advice, row: Candidate, width: int, marks: Marks) -> str:
    needed = row.memory.needed_bytes
    return bar(row.least.memory.needed_bytes.likely, needed.likely, needed.high, advice.gpu.memory_bytes, width, marks)


def bar(least: float, likely: float, high: float, card: float, width: int, marks: Marks) -> str:
    """`width` cells with the card's line at three quarters: filled up to each of the three values.

    A cell is filled if its start is below the value, so that a bar passes the line exactly if the value exceeds `card`.
    """
    line = int(width * _LINE_AT)
    cells = []
    for index in range(width - 1):
        start = card * (index / line)
        filled = marks.least if start < least else marks.plan if start < likely else marks.at_most
        cells.append(filled if start < max(least, likely, high) else " ")
    cells.insert(line, marks.card)
    if card * ((width - 1) / line) < high:
        cells[-1] = marks.beyond
    return "".join(cells)
