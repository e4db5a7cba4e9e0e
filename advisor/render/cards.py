"""Several cards: the recommended method under each engine, and on fewer and more cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console

from advisor.advice.phrases import batch_text, fits_column
from advisor.answer import Advice, Spread
from advisor.render.console import heading, new_table, print_table, say
from advisor.units import format_gib, format_seconds


def card_lines(advice: Advice) -> tuple[str, ...]:
    """What other engines need, and what fewer and more cards do: a sentence each; none for one card."""
    found = []
    others = [one for one in advice.engines if one.engine != advice.gpu.sharding]
    if others:
        found.append(f"Other engines: {'; '.join(f'{one.engine} {_figures(advice, one)}' for one in others)}.")
    if advice.scaling:
        rows = "; ".join(
            f"{one.gpus:,}{'' if one.gpus == 1 else f' by {one.engine}'} {_figures(advice, one)}"
            for one in advice.scaling
        )
        found.append(f"Cards: {rows}. {_ends(advice.scaling)}".rstrip())
    return tuple(found)


def _figures(advice: Advice, one: Spread) -> str:
    """'12.3 GiB, 30.1 min', '62.6 GiB, does not fit'."""
    needed = f"{format_gib(one.plan.memory.needed_bytes.likely)} GiB"
    if one.plan.verdict == "does_not_fit":
        return f"{needed}, does not fit"
    time = one.plan.time
    fits = "" if one.plan.verdict == "fits" else f", {fits_column(one.plan, advice.gpu.memory_bytes)}"
    return needed + fits if time is None else f"{needed}{fits}, {format_seconds(time.total_s.likely)}"


def _ends(spreads: Sequence[Spread]) -> str:
    """'Fastest: 8. Cheapest: 2.'; '' where fewer than two numbers of cards fit."""
    timed = [(one.gpus, one.plan.time.total_s.likely) for one in spreads
             if one.plan.time is not None and one.plan.verdict != "does_not_fit"]  # fmt: skip
    if len(timed) < 2:
        return ""
    fastest = min(timed, key=lambda one: one[1])[0]
    cheapest = min(timed, key=lambda one: one[0] * one[1])[0]
    return f"Fastest: {fastest:,}. Cheapest: {cheapest:,}."


def render_cards(console: Console, advice: Advice, file: TextIO) -> None:
    """Both as tables."""
    for title, spreads in (("Engines", advice.engines), ("Fewer and more cards", advice.scaling)):
        if len(spreads) < 2:
            continue
        heading(console, title)
        table = new_table()
        for name in ("", "cards", "engine", "batch", "GiB (at most)", "fits", "total", "card-hours"):
            table.add_column(name, justify="left" if name in ("engine", "fits") else "right")
        for one in spreads:
            table.add_row(*_cells(advice, one))
        print_table(file, table)
        say(console, f"* the plan above. {_ends(spreads) if title != 'Engines' else ''}".rstrip(), style="dim")


def _cells(advice: Advice, one: Spread) -> tuple[str, ...]:
    needed, time = one.plan.memory.needed_bytes, one.plan.time
    timed = time is not None and one.plan.verdict != "does_not_fit"
    chosen = one.gpus == advice.gpu.gpus and one.engine == advice.gpu.sharding
    return (
        "*" if chosen else "",
        f"{one.gpus:,}",
        one.engine,
        batch_text(one.plan.recipe),
        f"{format_gib(needed.likely)} ({format_gib(needed.high)})",
        fits_column(one.plan, advice.gpu.memory_bytes),
        format_seconds(time.total_s.likely) if timed and time else "-",
        f"{one.gpus * time.total_s.likely / 3600:,.2f}" if timed and time else "-",
    )
