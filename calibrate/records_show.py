"""Records of bursts for people: tables of 80 columns, one for each device and model. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from advisor.render.console import console_for, new_table, print_table, say
from advisor.units import GIB, format_seconds
from calibrate.checks import Mark, is_worst, marks_of
from calibrate.measurement import Comparison
from calibrate.plan import shape_text
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
    _print_errors(console, records)
    _print_marks(console, records)
    for record in records:
        if is_worst(record):
            say(console, f"WORST: {label(record)} ran out of memory although it was predicted to fit", style="bold")


def label(record: Comparison) -> str:
    """'llama-3.1-8b qlora 1x512 c'."""
    return f"{record.model} {record.method} {shape_text(record.recipe, record.seq_len)}"


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
        found.setdefault(f"{model}{own}; {place}", []).append(record)
    return found


def _cells(record: Comparison) -> tuple[str, ...]:
    shape = shape_text(record.recipe, record.seq_len)
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
