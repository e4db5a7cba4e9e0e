"""An Advice for people: at most 80 columns, readable without color."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from advisor.answer import Advice, Candidate, Reason
from advisor.knobs import idle_knobs
from advisor.render.console import console_for, heading, new_table, print_table, say, value_text
from advisor.rules.context import Rule
from advisor.rules.wording import DISPLAY, FORMULA, how
from advisor.specs import GpuSpec, TimeEstimate, TracedModel
from advisor.units import format_count, format_gib, format_seconds

if TYPE_CHECKING:
    from advisor.advice.breakdown import TimeBreakdown
    from advisor.export.run import TrainingFile

_VERDICTS = {"fits": "yes", "tight": "tight", "does_not_fit": "no"}
_TERMS_IN_SHORT = 4


def render(
    advice: Advice,
    file: TextIO,
    *,
    explain: bool = False,
    breakdown: TimeBreakdown | None = None,
    script: TrainingFile | None = None,
    next_step: bool = True,
) -> None:
    """Print the verdict, a row per method, reasons, warnings, memory, knobs; the `script`, or how to get it."""
    console = console_for(file)
    say(console, verdict_line(advice), style="bold")
    console.print()
    print_table(file, _candidate_table(advice))
    recommendation = advice.recommendation
    marked = '* recommended; "why" compares each row with it; ' if recommendation and len(advice.candidates) > 1 else ""
    say(console, f"{marked}batch = micro-batch x accumulation; c = gradient checkpointing", style="dim")
    if len(advice.gpu.cards) > 1:
        times = "; times cover all of them" if recommendation else ""
        say(console, f"Memory must fit the smallest of these cards{times}: {', '.join(advice.gpu.cards)}.")
    if recommendation is not None:
        _list(console, "Why", recommendation.reasons)
        _list(console, "Warnings", recommendation.warnings)
    _list(console, "What would fit", advice.alternatives)
    _list(console, "Notes", advice.notes)
    rows = advice.candidates if recommendation is None else (advice.candidate(recommendation.method),)
    if explain:
        for row in rows:
            _explain_memory(console, row, file)
    elif recommendation is not None:
        _memory_in_short(console, rows[0])
    if recommendation is not None:
        _time_in_short(console, advice, rows[0], hint=breakdown is None)
    if breakdown is not None:
        from advisor.render.time import render_times

        render_times(advice, breakdown, file)
    _knobs(console, advice, None if recommendation is None else rows[0])
    if script is not None:
        heading(console, f"Run this ({script.name})")
        file.write(script.text)
    elif next_step and recommendation is not None:
        console.print()
        say(console, _next_step(advice))


def _next_step(advice: Advice) -> str:
    if isinstance(advice.model, TracedModel):
        return f"Next: load it with {advice.model.kind}.from_pretrained and set the knobs above."
    return f"Next: add --write auto to write the file for {advice.trainer.name}, --script to print it."


def verdict_line(advice: Advice) -> str:
    """The answer in one sentence."""
    size = format_count(advice.parameters)
    job = f"{advice.model.name} ({size} parameters) on {_gpu_text(advice)}"
    if advice.recommendation is None:
        return f"Nothing fits: {job}."
    row = advice.candidate(advice.recommendation.method)
    needed = row.memory.needed_bytes
    rank = f" r={advice.recommendation.rank}" if advice.recommendation.rank else ""
    fits = "fits" if row.verdict == "fits" else "only just fits"
    text = (
        f"Use {DISPLAY[row.method]}{rank}: {job} {fits} with {format_gib(needed.low)} to "
        f"{format_gib(needed.high)} of {format_gib(advice.gpu.memory_bytes)} GiB"
    )
    if row.time is not None:
        text += f" and takes {_span(row.time)} for {advice.workload.examples:,} examples"
        text += f" x {advice.workload.epochs:g} epochs" if advice.workload.epochs != 1 else ""
    return text + "."


def _gpu_text(advice: Advice) -> str:
    cards, gpus, asked = advice.gpu.cards, advice.gpu.gpus, advice.gpu.asked
    name = cards[0] if len(cards) == 1 else f"{asked} card"
    if gpus > 1:
        return f"{gpus} x {name}"
    article = "an" if asked.startswith(("8", "11GB", "18GB")) else "a"
    return name if len(cards) == 1 else f"{article} {name}"


def _span(time: TimeEstimate) -> str:
    """'1.2 h to 1.9 h', or one value where both ends read the same."""
    low, high = format_seconds(time.total_s.low), format_seconds(time.total_s.high)
    return low if low == high else f"{low} to {high}"


def _candidate_table(advice: Advice) -> Table:
    table = new_table()
    for name, right in (
        ("method", False),
        ("GiB (at most)", True),
        ("fits", False),
        ("batch", True),
        ("step", True),
        ("total", True),
        ("why", False),
    ):
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=name != "why")
    for row in advice.candidates:
        table.add_row(*(Text(cell) for cell in _cells(advice, row)))
    return table


def _cells(advice: Advice, row: Candidate) -> tuple[str, ...]:
    """Cells of one row; the recommended method is marked with a star, checkpointing with a c."""
    chosen = advice.recommendation is not None and advice.recommendation.method == row.method
    needed = row.memory.needed_bytes
    step, total = "-", "-"
    if row.time is not None and row.verdict != "does_not_fit":
        step, total = format_seconds(row.time.step_s.likely), format_seconds(row.time.total_s.likely)
    recipe = row.recipe
    return (
        ("* " if chosen else "  ") + row.method,
        f"{format_gib(needed.likely)} ({format_gib(needed.high)})",
        _VERDICTS[row.verdict],
        f"{recipe.micro_batch}x{recipe.gradient_accumulation}{' c' if recipe.gradient_checkpointing else ''}",
        step,
        total,
        row.why,
    )


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


def _memory_in_short(console: Console, row: Candidate) -> None:
    """One paragraph: the largest terms and where the peak occurs."""
    terms = sorted(row.memory.terms, key=lambda term: -term.bytes)
    shown = [f"{term.name} {format_gib(term.bytes)}" for term in terms[:_TERMS_IN_SHORT] if term.bytes > 0]
    rest = sum(term.bytes for term in terms[_TERMS_IN_SHORT:])
    heading(console, "Memory")
    text = (
        f"{DISPLAY[row.method]}, {how(row.recipe)}: {', '.join(shown)}, the rest {format_gib(rest)} GiB; peak at "
        f"{row.memory.peak_at}. --explain lists every byte. The run needs "
        f"{format_gib(row.memory.needed_bytes.likely)} GiB. nvidia-smi may report "
        f"{format_gib(row.memory.device_bytes.likely)}, because PyTorch caches freed memory."
    )
    say(console, text)


def _time_in_short(console: Console, advice: Advice, row: Candidate, hint: bool) -> None:
    """One paragraph: what binds, how well the card is used, energy and cost."""
    time = row.time
    if time is None:
        return
    binds = {"compute": "matrix products", "memory": "memory traffic", "launch": "kernel launches on the host"}
    parts = [
        f"{format_seconds(time.micro_step_s.likely)} per micro-step, bound by {binds[time.bound]}",
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
    say(console, f"{'; '.join(parts)}. Evaluation, saving and start-up are not included.{pointer}")


def _explain_memory(console: Console, row: Candidate, file: TextIO) -> None:
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
    say(console, f"Evidence: {row.evidence.memory}; {row.evidence.time}")


def _knobs(console: Console, advice: Advice, row: Candidate | None) -> None:
    """Which knobs the question fixed, and the values of those that were chosen."""
    heading(console, "Knobs")
    fixed = ", ".join(name.replace("_", "-") for name in advice.fixed)
    say(console, f"fixed: {fixed or 'none'}", indent=2)
    say(console, _trainer_line(advice, row), indent=2)
    values = dict(advice.workload) if row is None else {**dict(advice.workload), **dict(row.recipe)}
    hidden = {"magnitude_dtype"} if row is not None and not row.recipe.is_dora else set()
    chosen = [
        f"{name.replace('_', '-')} {value_text(values[name])}"
        for name in advice.chosen
        if name in values and name not in hidden
    ]
    say(console, f"chosen: {', '.join(chosen)}", indent=2)


def _trainer_line(advice: Advice, row: Candidate | None) -> str:
    """The trainer that was assumed, whether it was traced, and what it set."""
    trainer = advice.trainer
    recipe = None if row is None else row.recipe
    idle = {} if recipe is None else idle_knobs(recipe.method)
    knobs = [
        name.replace("_", "-") + ("" if recipe is None else f" {value_text(getattr(recipe, name))}")
        for name in trainer.knobs
        if name not in idle
    ]
    note = "" if trainer.traced else " (not traced: see `advise trainers " + trainer.name + "`)"
    return f"trainer {trainer.name} {trainer.version}{note}: {', '.join(knobs) or 'sets nothing else'}"


def render_models(entries: Iterable[tuple[str, int, str, tuple[str, ...]]], file: TextIO) -> None:
    """A table of catalog models: name, parameters, Hub id, aliases."""
    table = new_table()
    for name in ("model", "size", "Hub id", "aliases"):
        table.add_column(name, overflow="fold", justify="right" if name == "size" else "left")
    for name, parameters, hub_id, aliases in entries:
        short = [alias for alias in aliases if "/" not in alias][:3]
        table.add_row(Text(name), format_count(parameters), Text(hub_id), Text(", ".join(short)))
    print_table(file, table)


def render_gpus(cards: Iterable[GpuSpec], file: TextIO) -> None:
    """A table of catalog cards: driver's memory, bandwidth, dense 16-bit rate."""
    table = new_table()
    for name in ("card", "generation", "GiB", "GB/s", "16-bit TFLOP/s"):
        table.add_column(name, overflow="fold", justify="left" if name in ("card", "generation") else "right")
    for card in cards:
        half = card.bf16_flop_per_s or card.fp16_flop_per_s
        table.add_row(
            Text(card.name),
            Text(card.generation),
            format_gib(card.memory_bytes),
            f"{card.memory_bytes_per_s / 1e9:,.0f}",
            f"{half / 1e12:,.0f}" + ("" if card.bf16_flop_per_s else " fp16"),
        )
    print_table(file, table)


def render_rules(rules: Iterable[Rule], file: TextIO) -> None:
    """A table of rules: code, kind, title."""
    table = new_table()
    for name in ("code", "kind", "rule"):
        table.add_column(name)
    for rule in rules:
        table.add_row(rule.code, rule.kind, Text(rule.title))
    print_table(file, table)


def render_rule(rule: Rule, file: TextIO) -> None:
    """One rule's explanation and sources."""
    console = console_for(file)
    say(console, f"{rule.code}: {rule.title}", style="bold")
    console.print()
    _, _, body = rule.explanation.strip().partition("\n\n")
    for paragraph in body.split("\n\n"):
        say(console, " ".join(paragraph.split()))
        console.print()
    for source in rule.sources:
        say(console, f"Source: {source}", indent=2)
