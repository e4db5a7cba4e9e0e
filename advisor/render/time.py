"""Where the time goes, for people: the most expensive kernels of a step, and its parts method by method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from rich.text import Text

from advisor.advice.breakdown import TimeBreakdown
from advisor.answer import Advice, Candidate
from advisor.costs.attention import attention_text
from advisor.costs.explanation import StepParts, compared
from advisor.render.console import console_for, heading, new_table, print_table, say
from advisor.rules.wording import DISPLAY, how
from advisor.specs import Method
from advisor.units import MIB, format_seconds

DEAREST = 10


def render_times(advice: Advice, times: TimeBreakdown, file: TextIO) -> None:
    """Print the ten most expensive kernels of the recommended row, or of the first, and the breakdown of every row."""
    console = console_for(file)
    if times.missing:
        say(console, f"No kernels to show: {times.missing}")
        return
    rows = advice.candidates
    chosen = rows[0] if advice.recommendation is None else advice.candidate(advice.recommendation.method)
    _most_expensive(file, chosen, times.steps[chosen.method], times.card)
    _side_by_side(file, rows, times.steps)


def _most_expensive(file: TextIO, row: Candidate, step: StepParts, card: str) -> None:
    console = console_for(file)
    heading(
        console,
        f"Time of {DISPLAY[row.method]}, {how(row.recipe)}, on {card}: "
        f"{format_seconds(step.micro_step_s)} per micro-step",
    )
    table = new_table()
    table.add_column("most expensive kernels", overflow="fold")
    for name in ("launches", "each", "share", "bound"):
        table.add_column(name, justify="left" if name == "bound" else "right")
    for kernel in step.kernels[:DEAREST]:
        size = " x ".join(map(str, kernel.shape)) if any(kernel.shape) else f"{kernel.moved_bytes / MIB:,.1f} MiB"
        table.add_row(
            Text(f"{kernel.place}: {kernel.kind} {size}, {kernel.dtype}"),
            f"{kernel.times:,}",
            format_seconds(kernel.seconds / kernel.times),
            f"{kernel.seconds / step.kernels_s:.1%}",
            kernel.bound,
        )
    print_table(file, table)
    if row.evidence.attention:
        say(console, f"Attention: {attention_text(row.evidence.attention, row.recipe.stack)}.", style="dim")
    rest = step.kernels[DEAREST:]
    say(
        console,
        f"{len(rest):,} more kinds of kernels take {sum(k.seconds for k in rest) / step.kernels_s:.0%}. "
        "Sizes: m x n x k of a product, or what one launch reads and writes.",
        style="dim",
    )


def _side_by_side(file: TextIO, rows: tuple[Candidate, ...], steps: Mapping[Method, StepParts]) -> None:
    heading(console_for(file), "A micro-step of each method, by part")
    table = new_table()
    table.add_column("part", overflow="fold")
    for row in rows:
        table.add_column(row.method, justify="right")
    for name, values in compared(steps):
        table.add_row(name, *(format_seconds(value) if value else "-" for value in values))
    table.add_section()
    table.add_row(
        "micro-batch", *(f"{row.recipe.micro_batch}{' c' if row.recipe.gradient_checkpointing else ''}" for row in rows)
    )
    table.add_row("total", *(format_seconds(sum(step.parts.values())) for step in steps.values()))
    print_table(file, table)
