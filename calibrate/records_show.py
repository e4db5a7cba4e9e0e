"""Records of bursts for people: tables of 80 columns, one for each device and model. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from advisor.render.console import console_for, new_table, print_table, say
from advisor.units import GIB, format_seconds
from calibrate.burst_record import Run
from calibrate.checks import Mark, is_worst, marks_of
from calibrate.measurement import Comparison
from calibrate.plan import cards_text, shape_text
from calibrate.residuals import PEAK, RESERVED, STEP, Spread, errors, spread

COLUMNS = (
    ("method", False),
    ("shape", False),
    ("peak GiB", True),
    ("measured", True),
    ("error", True),
    ("step", True),
    ("measured", True),
    ("error", True),
    ("marks", False),
)
OUTCOMES = {"out_of_memory": "no memory", "crashed": "crashed", "timed_out": "too slow", "failed": "failed"}
EXPLAINED = 8
RESERVED_AFTER = (10, 20, 50)
"""Steps after which it is said what is reserved, where rows vary."""


def print_records(records: Sequence[Comparison], out: TextIO | None = None) -> None:
    """Predicted against measured, burst by burst, and a summary of the errors."""
    file = out or sys.stdout
    console = console_for(file)
    for title, group in _groups(records).items():
        say(console, title, style="bold")
        table = new_table()
        for name, right in COLUMNS:
            table.add_column(name, justify="right" if right else "left", no_wrap=name != "marks", overflow="fold")
        for record in group:
            table.add_row(*(Text(cell) for cell in _cells(record)))
        print_table(file, table)
        console.print()
    for line in (line for record in records for line in beyond_one_step(record)):
        say(console, line)
    _print_errors(console, records)
    _print_marks(console, records)
    for record in records:
        if is_worst(record):
            say(console, f"WORST: {label(record)} ran out of memory although it was predicted to fit", style="bold")


def label(record: Comparison) -> str:
    """'llama-3.1-8b qlora 1x512 c'."""
    shape = shape_text(record.recipe, record.batch, record.seq_len, record.kind)
    return f"{record.model} {record.method} {shape}{cards_text(record.placement)}"


def beyond_one_step(record: Comparison) -> Iterator[str]:
    """Lines on what a burst measured besides one step: each of its steps where rows vary, and an evaluation."""
    run = record.burst.run if record.burst is not None else None
    if record.measured is None or record.burst is None or run is None:
        return
    if run.rank_peak_bytes:
        found = ", ".join(gib(one) for one in run.rank_peak_bytes)
        yield f"{label(record)}: peak of each rank, GiB: {found}"
    measured, drawn = run.step_peak_bytes, record.burst.drawn
    if measured:
        shapes = len({step.lengths for step in drawn[: len(measured)]})
        yield f"{label(record)}: {len(measured)} steps of {shapes} shapes: {_error_text(step_errors(record))}"
        yield f"{label(record)}: {_reserved_text(record)}"
    if record.measured.evaluation_bytes is not None:
        predicted = record.predicted.evaluation_bytes if record.predicted is not None else None
        said = "no prediction" if predicted is None else f"predicted {gib(predicted)}"
        found, error = gib(record.measured.evaluation_bytes), percent(record.error_of("evaluation_bytes"), 2)
        yield f"{label(record)}: evaluation, GiB: {said}, measured {found}, error {error}"


def _error_text(errors_of_steps: list[float]) -> str:
    found = sorted(map(abs, errors_of_steps))
    if not found:
        return "no prediction"
    return f"error of the peak {found[len(found) // 2]:.2%} at the median, {found[-1]:.2%} at most"


def step_errors(record: Comparison) -> list[float]:
    """Predicted over measured peak, minus 1, of each step of a burst whose rows vary."""
    run = record.burst.run if record.burst is not None else None
    if record.burst is None or run is None:
        return []
    pairs = zip(record.burst.drawn, run.step_peak_bytes, strict=False)  # the budget may have ended them early
    return [step.predicted_bytes / found - 1 for step, found in pairs if step.predicted_bytes is not None]


def _reserved_text(record: Comparison) -> str:
    """'reserved, GiB: 1.10 after 10 steps, 1.20 after 20; predicted 1.30'."""
    assert record.burst is not None and record.burst.run is not None
    after = [(steps, reserved_after(record.burst.run, steps)) for steps in RESERVED_AFTER]
    known = [f"{gib(size)} after {steps}" for steps, size in after if size is not None]
    if not known:
        return "reserved: not known"
    predicted = record.predicted.peak_reserved_bytes if record.predicted is not None else None
    said = "no prediction" if predicted is None else f"predicted {gib(predicted)}"
    return f"reserved, GiB: {', '.join(known)} steps; {said}"


def reserved_after(run: Run, steps: int) -> int | None:
    """Most bytes reserved in the first `steps` steps; None where that is not known, or there were fewer."""
    found = run.step_reserved_bytes[:steps]
    known = [size for size in found if size is not None]
    return max(known) if len(known) == steps else None


def percent(error: float | None, digits: int = 1) -> str:
    """'+2.4%', '-' for none; a value that rounds to zero has no sign."""
    if error is None:
        return "-"
    text = f"{error:+.{digits}%}"
    return text[1:] if float(text[1:-1]) == 0 else text


def _groups(records: Iterable[Comparison]) -> dict[str, list[Comparison]]:
    found: dict[str, list[Comparison]] = {}
    for record in records:
        device, burst = record.environment.device, record.burst
        model = f"{record.model}, cut to {burst.cut}" if burst is not None and burst.cut else record.model
        own = " (own training)" if burst is not None and burst.origin == "training" else ""
        place = device.signature if device is not None else record.source
        found.setdefault(f"{model}{own}; {place}{cards_text(record.placement)}", []).append(record)
    return found


def _cells(record: Comparison) -> tuple[str, ...]:
    shape = shape_text(record.recipe, record.batch, record.seq_len, record.kind)
    predicted, measured, burst = record.predicted, record.measured, record.burst
    peak = gib(predicted.peak_allocated_bytes) if predicted is not None else "-"
    step = seconds(predicted.step_s) if predicted is not None else "-"
    codes = ", ".join(dict.fromkeys(mark.code for mark in marks_of(record)))
    if measured is None:
        outcome = OUTCOMES.get(burst.outcome, "-") if burst is not None else "-"
        worst = "WORST" if is_worst(record) else ""
        return record.method, shape, peak, outcome, "-", step, "-", "-", worst
    return (
        record.method,
        shape,
        peak,
        gib(measured.peak_allocated_bytes),
        percent(record.error_of(PEAK), 2),
        step,
        seconds(measured.step_s),
        percent(record.error_of(STEP)),
        codes,
    )


def gib(size_bytes: int) -> str:
    """Bytes in GiB, to about 1 MiB for small values."""
    size = size_bytes / GIB
    return f"{size:.3f}" if size < 100 else f"{size:.2f}"


def seconds(time_s: float | None) -> str:
    """'123 ms', '-' for none."""
    return "-" if time_s is None else format_seconds(time_s)


def _print_errors(console: Console, records: Sequence[Comparison]) -> None:
    for name, field, digits in (("peak allocated", PEAK, 2), ("peak reserved", RESERVED, 1), ("step time", STEP, 1)):
        found = spread(errors(records, field))
        if found is not None:
            say(console, f"{name}: {summary(found, digits)}")


def summary(found: Spread, digits: int = 1) -> str:
    """Count, typical and worst error in words."""
    return (
        f"median error {found.typical:.{digits}%} over {found.bursts} clean bursts, worst"
        f" {percent(found.worst, digits)}"
    )


def _print_marks(console: Console, records: Sequence[Comparison]) -> None:
    """One example of each finding, and how often it came up."""
    examples: dict[str, tuple[Mark, Comparison, int]] = {}
    for record in records:
        for mark in marks_of(record):
            known = examples.get(mark.code)
            examples[mark.code] = (known[0], known[1], known[2] + 1) if known else (mark, record, 1)
    for mark, record, count in list(examples.values())[:EXPLAINED]:
        often = f" ({count} bursts)" if count > 1 else ""
        effect = f"; not fitted ({mark.spoils})" if mark.spoils else ""
        say(console, f"- {mark.code}{often}: {label(record)}: {mark.text}{effect}", indent=2)
