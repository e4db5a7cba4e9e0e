"""The rows of profiles/measured/published.jsonl and what a prediction of one of them is."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, NamedTuple

from advisor.decoders.stack import THIS_STACK, Stack
from advisor.specs import MemoryEstimate, ModelSpec, Recipe
from advisor.units import GIB

GB = 10**9

Row = dict[str, Any]
"""One row of the file; the keys are those of the file."""


class PublishedRun(NamedTuple):
    """How a row was run: what was trained, how, on which card, and what its code does differently from ours."""

    model: ModelSpec
    recipe: Recipe
    gpu: str
    stack: Stack = THIS_STACK
    padded: bool = False  # its rows differ in length within a micro-batch


class Figure(NamedTuple):
    """One measured number of a row with its prediction, in bytes."""

    what: str
    measured_bytes: float
    predicted_bytes: float

    @property
    def error(self) -> float:
        """Prediction over measurement, minus 1."""
        return self.predicted_bytes / self.measured_bytes - 1


class Predicted(NamedTuple):
    """A row as it was run: its figures, and where the card is known what it must hold."""

    figures: tuple[Figure, ...]
    memory: MemoryEstimate | None = None
    card_bytes: int = 0


class Unanswered(NamedTuple):
    """Why a row is not predicted."""

    reason: str


def published_rows(*groups: str) -> list[Row]:
    """All rows, or those of these groups, in the order of the file."""
    text = (resources.files("profiles") / "measured" / "published.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [row for row in rows if not groups or row["group"] in groups]


def peak_figure(row: Row, what: str, predicted_bytes: float) -> tuple[Figure, ...]:
    """The row's peak beside ours; nothing for a row that ran out of memory."""
    if row["status"] != "ok":
        return ()
    return (Figure(what, row["peak_mem_gib"] * GIB, predicted_bytes),)
