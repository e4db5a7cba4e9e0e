"""What `--explain` adds: sources, every term of the peak, other plans and their prices, time, knobs, cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.text import Text

from advisor.advice.phrases import BOUND_BY, batch_text, fits_column, price_text, value_text
from advisor.answer import Advice, Candidate, Change, Plan, Reason
from advisor.costs.attention import attention_text
from advisor.knobs import idle_knobs
from advisor.optimizers import optimizer_row
from advisor.render.console import console_for, heading, new_table, print_table, say
from advisor.rules.wording import DISPLAY, FORMULA, how
from advisor.units import format_gib, format_seconds


def render_details(advice: Advice, file: TextIO, *, hint: bool) -> None:
    """Print everything that the first screen leaves out; `hint` names --explain-time."""
    console = console_for(file)
    recommendation = advice.recommendation
    if recommendation is not None:
        _list(console, "Why", recommendation.reasons)
        _list(console, "Warnings", recommendation.warnings)
    _list(console, "What would surely fit" if advice.recommendation else "What would fit", advice.alternatives)
    _list(console, "Notes", advice.notes)
    rows = advice.candidates if recommendation is None else (advice.candidate(recommendation.method),)
    for row in rows:
        _memory(console, row, file)
    chosen = None if recommendation is None else rows[0]
    if advice.simulation is not None:
        _list(console, "What makes the allocator hold less", advice.simulation.remedies)
    if chosen is not None:
        _frontier(console, advice, chosen, file)
        if advice.gpu.gpus > 1:
            from advisor.render.cards import render_cards

            render_cards(console, advice, file)
        _list(console, "What one change brings", (_priced(change) for change in advice.prices))
        _time(console, advice, chosen, hint)
    _cards(console, advice)
    _knobs(console, advice, chosen)


def _priced(change: Change) -> Reason:
    return Reason(code=change.code, text=f"{price_text(change)}.", source=change.source)


def _list(console: Console, title: str, reasons: Iterable[Reason]) -> None:
    """A heading and one item for each reason, with its rule and source."""
    items = tuple(reasons)
    if not items:
        return
    heading(console, title)
    for reason in items:
        say(console, f"- {reason.text} [{reason.code}]", indent=2)
        if reason.source != FORMULA:
            say(console, f"  {reason.source}", style="dim", indent=2)


def _memory(console: Console, row: Candidate, file: TextIO) -> None:
    """Every term of the peak in bytes, their sum, the three counters, and the evidence for the numbers."""
    heading(console, f"Memory of {DISPLAY[row.method]}, {how(row.recipe)}: peak at {row.memory.peak_at}")
    table = new_table()
    table.add_column("term", overflow="fold")
    table.add_column("bytes", justify="right")
    table.add_column("GiB", justify="right")
    for term in row.memory.terms:
        table.add_row(Text(term.name), f"{term.bytes:,}", format_gib(term.bytes))
    memory = row.memory
    table.add_section()
    for name, value in (
        ("allocated by tensors (likely)", memory.peak_allocated_bytes.likely),
        ("reserved by PyTorch (likely)", memory.peak_reserved_bytes.likely),
        ("must fit, at least", memory.needed_bytes.low),
        ("must fit, likely", memory.needed_bytes.likely),
        ("must fit, at most", memory.needed_bytes.high),
        ("nvidia-smi shows (likely, with room)", memory.device_bytes.likely),
    ):
        table.add_row(name, f"{value:,.0f}", format_gib(value))
    print_table(file, table)
    if memory.moments:
        parts = (f"{one.name} {format_gib(one.needed_bytes.likely)} GiB" for one in memory.moments)
        say(console, f"Must fit, by moment of the job: {', '.join(parts)}.")
    say(console, "nvidia-smi may show more than must fit, because PyTorch caches freed memory.")
    if memory.host_bytes:
        say(console, f"The host holds {format_gib(memory.host_bytes)} GiB besides for each card.")
    if row.evidence.attention:
        say(console, f"Attention: {attention_text(row.evidence.attention, row.recipe.stack)}.")
    say(console, f"Evidence: {row.evidence.memory}; {row.evidence.time}")


def _frontier(console: Console, advice: Advice, row: Candidate, file: TextIO) -> None:
    """The plans that no other beats in both memory and time."""
    plans = advice.frontier
    if not plans:
        return
    heading(console, f"Plans of {DISPLAY[row.method]}: none takes less memory and less time than one of these")
    table = new_table()
    table.add_column("")
    for name in ("batch", "segments", "GiB (at most)", "fits", "step", "total"):
        table.add_column(name, justify="left" if name in ("segments", "fits") else "right")
    for plan in plans:
        table.add_row(*_frontier_cells(advice, plan, plan.recipe == row.recipe))
    print_table(file, table)
    say(console, "* the plan above; segments: of PyTorch's allocator (--expandable-segments).", style="dim")


def _frontier_cells(advice: Advice, plan: Plan, chosen: bool) -> tuple[str, ...]:
    needed, time = plan.memory.needed_bytes, plan.time
    return (
        "*" if chosen else "",
        batch_text(plan.recipe),
        "expandable" if plan.recipe.expandable_segments else "fixed",
        f"{format_gib(needed.likely)} ({format_gib(needed.high)})",
        fits_column(plan, advice.gpu.memory_bytes),
        "-" if time is None else format_seconds(time.step_s.likely),
        "-" if time is None else format_seconds(time.total_s.likely),
    )


def _time(console: Console, advice: Advice, row: Candidate, hint: bool) -> None:
    """One paragraph: the interval, what binds, how well the card is used, energy and cost."""
    time = row.time
    if time is None:
        return
    total, step = time.total_s, time.step_s
    parts = [
        f"{format_seconds(total.low)} to {format_seconds(total.high)} in all, likely {format_seconds(total.likely)}",
        f"{format_seconds(step.likely)} per step",
        f"{format_seconds(time.micro_step_s.likely)} per micro-step, bound by {BOUND_BY[time.bound]}",
        f"{time.tokens_per_s:,.0f} tokens/s",
        f"{time.mfu:.0%} of the peak FLOP/s used",
    ]
    if time.energy_j is not None:
        low, high = (f"{value / 3.6e6:,.2g}" for value in (time.energy_j.low, time.energy_j.high))
        parts.append(f"{low} to {high} kWh at the card{'s' if advice.gpu.gpus > 1 else ''}")
    if row.cost is not None:
        parts.append(f"cost {row.cost.low:,.2f} to {row.cost.high:,.2f}, likely {row.cost.likely:,.2f}")
    heading(console, "Time")
    pointer = " --explain-time lists the kernels." if hint else ""
    if time.evaluation_s is not None:
        parts.append(f"{format_seconds(time.evaluation_s.likely)} of it in evaluation")
    left_out = "Saving" if time.evaluation_s is not None else "Evaluation, saving"
    say(console, f"{'; '.join(parts)}. {left_out} and start-up are not included.{pointer}")


def _cards(console: Console, advice: Advice) -> None:
    """All cards of a bare size."""
    cards = advice.gpu.cards
    if len(cards) > 1:
        heading(console, f"{len(cards)} cards of {advice.gpu.asked}")
        say(console, f"Memory must fit the smallest, times cover all of them: {', '.join(cards)}.")


def _knobs(console: Console, advice: Advice, row: Candidate | None) -> None:
    """Which knobs the question fixed, and the values of those that were chosen."""
    heading(console, "Knobs")
    fixed = ", ".join(name.replace("_", "-") for name in advice.fixed)
    say(console, f"fixed: {fixed or 'none'}", indent=2)
    say(console, _trainer_line(advice, row), indent=2)
    values = dict(advice.workload) if row is None else {**dict(advice.workload), **dict(row.recipe)}
    hidden = {"magnitude_dtype"} if row is not None and not row.recipe.is_dora else set()
    hidden |= set() if advice.workload.packing else {"packing_strategy"}
    hidden |= {name for name in ("modules_to_save", "stack", "kernels") if not values.get(name)}
    hidden |= set() if row is None or values["modules_to_save"] or values["trained_layers"] else {"trained_dtype"}
    hidden |= set() if row is not None and optimizer_row(row.recipe.optimizer).low_rank else {"optimizer_rank"}
    chosen = [
        f"{name.replace('_', '-')} {value_text(values[name])}"
        for name in advice.chosen
        if name in values and name not in hidden
    ]
    say(console, f"chosen: {', '.join(chosen)}", indent=2)


def _trainer_line(advice: Advice, row: Candidate | None) -> str:
    """The trainer that was assumed, whether it was traced, and what it set."""
    trainer = advice.trainer
    values = dict(advice.workload) | ({} if row is None else dict(row.recipe))
    idle = {} if row is None else idle_knobs(row.method, trained_layers=row.recipe.trained_layers)
    knobs = [
        name.replace("_", "-") + (f" {value_text(values[name])}" if name in values else "")
        for name in trainer.knobs
        if name not in idle
    ]
    note = "" if trainer.traced else " (not traced: see `advise trainers " + trainer.name + "`)"
    return f"trainer {trainer.name} {trainer.version}{note}: {', '.join(knobs) or 'sets nothing else'}"
