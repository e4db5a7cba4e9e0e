"""Several models and cards for people: one row for each pair, the fastest and the cheapest marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TextIO

from rich.text import Text

from advisor.advice.compare import Pair
from advisor.advice.phrases import batch_text, fits_column, total_text
from advisor.answer import Candidate
from advisor.render.console import console_for, new_table, print_table, say
from advisor.units import format_gib


def render_comparison(pairs: Sequence[Pair], file: TextIO) -> None:
    """Print the table; the cost only where there is a price."""
    rows = [_row(pair) for pair in pairs]
    priced = any(row.cost is not None for row in rows)
    marks = _marks(pairs, rows)
    table = new_table(tight=True)
    for name in (
        "model",
        "GPU",
        "method",
        "fits",
        "batch",
        "GiB (at most)",
        "total",
        *(["cost"] if priced else []),
        "",
    ):
        right = name in ("batch", "GiB (at most)", "total", "cost")
        table.add_column(
            name, justify="right" if right else "left", overflow="fold", no_wrap=name not in ("model", "GPU", "")
        )
    for pair, row, mark in zip(pairs, rows, marks, strict=True):
        table.add_row(*(Text(cell) for cell in (pair.model, pair.gpu, *_cells(pair, row, priced), mark)))
    print_table(file, table)
    console = console_for(file)
    say(console, "batch = micro-batch x accumulation; c = gradient checkpointing.", style="dim")
    if any(pair.advice.recommendation is None for pair in pairs):
        say(console, "Where nothing fits, the row has the least that was found; `advise` says what would fit.")
    if any(len(pair.advice.gpu.cards) > 1 for pair in pairs):
        say(console, "A bare size stands for all its cards: memory must fit the smallest, total is between their ends.")


def _row(pair: Pair) -> Candidate:
    """The recommended row or, where nothing fits, the one that needs the least."""
    advice = pair.advice
    if advice.recommendation is not None:
        return advice.candidate(advice.recommendation.method)
    return min(advice.candidates, key=lambda row: row.memory.needed_bytes.likely)


def _cells(pair: Pair, row: Candidate, priced: bool) -> tuple[str, ...]:
    needed, fits = row.memory.needed_bytes, pair.advice.recommendation is not None
    cost = (f"{row.cost.likely:,.2f}" if row.cost is not None and fits else "-",) if priced else ()
    return (
        row.method,
        fits_column(row, pair.advice.gpu.memory_bytes),
        batch_text(row.recipe),
        f"{format_gib(needed.likely)} ({format_gib(needed.high)})",
        total_text(row),
        *cost,
    )


def _marks(pairs: Sequence[Pair], rows: Sequence[Candidate]) -> list[str]:
    """'fastest', 'cheapest' or both, for the first of the best of two and more rows that run."""
    running = [i for i, pair in enumerate(pairs) if pair.advice.recommendation is not None]

    def best(value: Callable[[Candidate], float | None]) -> int:
        known = {i: found for i in running if (found := value(rows[i])) is not None}
        return min(known, key=known.__getitem__) if len(known) > 1 else -1

    fastest = best(lambda row: None if row.time is None else row.time.total_s.likely)
    cheapest = best(lambda row: None if row.cost is None else row.cost.likely)
    return [", ".join((["fastest"] * (i == fastest)) + (["cheapest"] * (i == cheapest))) for i in range(len(rows))]
