"""What the readers of all formats yield."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Told now and then how much of how much is read."""

Numbered = tuple[int, object]
"""The line (of Parquet: the row) at which a row ends, counted from 1, and the row; a BadRow where it is broken."""


class BadRow(ValueError):
    """A row that training could not read, and why; it is counted, and not an error of its own."""
