"""A table as lines of text: a line under its header, one or two spaces between columns, no other rules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal, NamedTuple

from advisor.render.wrapping import cells_of, wrap

Justify = Literal["left", "right"]
RULE, ASCII_RULE = "─", "-"


class Column(NamedTuple):
    """The title of a column, which may have several lines, and how its cells are set."""

    title: str
    right: bool
    no_wrap: bool


class Table:
    """Rows of texts under titles; cells are printed literally."""

    def __init__(self, *, gap: int, rule: str = RULE) -> None:
        """`gap`: the spaces between columns; `rule`: the character of the line under the header."""
        self.columns: list[Column] = []
        self.rows: list[Sequence[str]] = []
        self._gap, self._rule = gap, rule

    def add_column(self, title: str, justify: Justify = "left", no_wrap: bool = False) -> None:
        """A column; the lines of one with `no_wrap` are broken only where no other column can give way."""
        self.columns.append(Column(title, justify == "right", no_wrap))

    def add_row(self, *cells: str) -> None:
        """A row with a cell for each column."""
        self.rows.append(cells)

    def add_section(self) -> None:
        """An empty line below the rows so far."""
        self.rows.append([""] * len(self.columns))

    def lines(self, width: int) -> tuple[list[str], list[str]]:
        """The lines of the header and those below it, at most `width` cells wide; short titles stand at the bottom."""
        widths = self._widths(width)
        rule = self._rule * (sum(widths) + self._gap * (len(widths) - 1))
        titles = [wrap(column.title, one) for column, one in zip(self.columns, widths, strict=True)]
        most = max(map(len, titles))
        header = self._set([[""] * (most - len(title)) + title for title in titles], widths)
        return header, [rule, *(line for row in self.rows for line in self._row(row, widths))]

    def _widths(self, width: int) -> list[int]:
        """The cells of each column: as many as its longest line, fewer where all together are too wide."""
        texts = zip([column.title for column in self.columns], *self.rows, strict=True)
        widths = [max(cells_of(line) for text in column for line in text.split("\n")) for column in texts]
        excess = sum(widths) + self._gap * (len(widths) - 1) - width
        if excess > 0:
            wrapping = [i for i, column in enumerate(self.columns) if not column.no_wrap]
            excess = _shrink(widths, wrapping, excess)
        if excess > 0:
            _shrink(widths, range(len(widths)), excess)
        return [max(one, 1) for one in widths]

    def _row(self, cells: Sequence[str], widths: Sequence[int]) -> list[str]:
        """The lines of one row; cells of several lines begin in its first."""
        return self._set([wrap(cell, width) for cell, width in zip(cells, widths, strict=True)], widths)

    def _set(self, cells: Sequence[list[str]], widths: Sequence[int]) -> list[str]:
        """The lines of cells that are wrapped."""
        return [
            (" " * self._gap).join(
                " " * (width - cells_of(text)) + text if column.right else text + " " * (width - cells_of(text))
                for text, width, column in zip(line, widths, self.columns, strict=True)
            )
            for line in zip_longest(*cells, fillvalue="")
        ]


def _shrink(widths: list[int], which: Sequence[int], excess: int) -> int:
    """Take `excess` cells from the widest of the columns `which`, evenly; what could not be taken."""
    while excess > 0 and any(widths[i] > 1 for i in which):
        widest = max(widths[i] for i in which)
        among = [i for i in which if widths[i] == widest]
        step = widest - max((widths[i] for i in which if widths[i] < widest), default=1)
        for left, i in zip(range(len(among), 0, -1), among, strict=True):
            taken = min(step, round(excess / left))
            widths[i] -= taken
            excess -= taken
    return excess
