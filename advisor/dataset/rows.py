"""What the readers of all formats yield."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Told now and then how much of how much is read."""

Numbered = tuple[int, object]
"""The line (of Parquet: the row) at which a row ends, counted from 1, and the row; a BadRow where it is broken."""


def shown(text: object, most: int = 80) -> str:
    """What a file or a library says, fit for a line of ours: without control characters, and not too long."""
    line = " ".join(str(text).split())
    printable = line if line.isprintable() else repr(line)[1:-1]
    return printable if len(printable) <= most else printable[: most - 3] + "..."


class BadRow(ValueError):
    """A row that training could not read, and why; it is counted, and not an error of its own."""
