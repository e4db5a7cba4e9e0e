"""Published measurements beside what the engine says of the same runs, the nearest to a question first."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from math import log2
from typing import NamedTuple

from advisor.answer import Advice
from advisor.catalog.data import data_text
from advisor.page.markup import folded, grid, paragraph
from advisor.rules.wording import DISPLAY
from advisor.units import format_gib, format_seconds

FILE = ("measured", "beside.json")
"""Where a page's copy of the package has the rows; an installed package has none."""
_NEAREST = 5


class Published(NamedTuple):
    """One published figure with ours: bytes of memory, or seconds of a step."""

    what: str
    model: str
    method: str
    card: str
    parameters: int
    tokens: int  # of a micro-batch
    measured: float
    low: float
    likely: float
    high: float
    url: str

    @property
    def error(self) -> float:
        """Ours over theirs, minus 1."""
        return self.likely / self.measured - 1

    @property
    def inside(self) -> bool:
        """Whether theirs lies in the interval that an answer states."""
        return self.low <= self.measured <= self.high


@cache
def published() -> tuple[Published, ...]:
    """All rows; () where this copy of the package has none."""
    try:
        text = data_text(*FILE)
    except OSError:
        return ()
    return tuple(Published(*row) for row in json.loads(text))


def distance(row: Published, parameters: int, method: str, tokens: int, cards: tuple[str, ...]) -> float:
    """How unlike a question a row is: doublings of size and of tokens, and other methods and cards."""
    away = abs(log2(row.parameters / parameters)) + abs(log2(row.tokens / tokens)) / 2
    return away + (row.method != method) * 2.0 + (row.card not in cards) * 0.5


def trust_html(advice: Advice, rows: tuple[Published, ...]) -> str:
    """How often the intervals hold, and the table, the row nearest to this answer marked; '' for no rows."""
    if not rows:
        return ""
    chosen = advice.recommendation
    best = advice.candidate(chosen.method) if chosen else advice.candidates[0]
    tokens = best.recipe.micro_batch * advice.workload.mean_seq_len
    cards = advice.gpu.cards
    ranked = sorted(rows, key=lambda row: (distance(row, advice.parameters, best.method, tokens, cards), row))
    inside = sum(row.inside for row in rows)
    errors = sorted(abs(row.error) for row in rows)
    head = ("run", "what", "published", "ours (low to high)", "off by", "inside")
    said = (
        f"{inside} of {len(rows)} published figures lie in the interval that an answer states; half of them are at "
        f"most {errors[len(errors) // 2]:.1%} off. Nothing is fitted to them."
    )
    nearest = grid("The published runs nearest to this question", head, map(_cells, ranked[:_NEAREST]), 0)
    others = grid("All published runs", head, map(_cells, ranked[_NEAREST:]))
    return paragraph(said) + nearest + folded(f"The other {len(ranked) - _NEAREST}", others)


def _cells(row: Published) -> tuple[str, ...]:
    text = format_seconds if row.what == "step time" else _gib
    method = DISPLAY.get(row.method, row.method)  # type: ignore[call-overload]
    run = f'<a href="{escape(row.url)}" rel="noreferrer">{escape(row.model)}</a>, {escape(method)}, {escape(row.card)}'
    return (
        f"{run}, {row.tokens:,} tokens",
        escape(row.what),
        text(row.measured),
        f"{text(row.likely)} ({text(row.low)} to {text(row.high)})",
        f"{row.error:+.1%}",
        "yes" if row.inside else "no",
    )


def _gib(size_bytes: float) -> str:
    return f"{format_gib(size_bytes)} GiB"
