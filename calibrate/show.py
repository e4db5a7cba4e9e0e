"""Traces and comparisons for people, at 80 columns (traces wider). Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table

from advisor.units import GIB, MIB
from calibrate.measurement import Comparison, Figures, Trace
from calibrate.ranks import how
from calibrate.records_show import gib, percent
from calibrate.timeline import STATIC

COLUMNS = 80
TRACE_COLUMNS = 170
TERMS = {
    "base_weights_bytes": "weights",
    "quantization_bytes": "quant",
    "adapters_bytes": "adapters",
    "optimizer_states_bytes": "optim",
    "after_forward_bytes": "fwd end",
    "peak_allocated_bytes": "peak",
}
RANK_TERMS = {
    **{field: title for field, title in TERMS.items() if field not in ("after_forward_bytes", "peak_allocated_bytes")},
    "static_bytes": "static",
    "forward_bytes": "forward",
    "peak_allocated_bytes": "peak",
}
"""Of one of several cards: static is all that stands, buckets of gradients too. Columns without a byte are left out."""


LOADING = {"loading": "loading_bytes", "loaded": "loaded_bytes", "preparing": "preparing_bytes"}
FROM_SOURCE = (
    "Masks, and keys and values repeated for them, are traced. The kernel that a\n"
    "card runs under a mask, and its tensors, are read from source: advise --explain."
)


def mib(size_bytes: int) -> str:
    """Bytes as MiB with two decimals."""
    return f"{size_bytes / MIB:,.2f}"


def print_comparisons(comparisons: Sequence[Comparison], out: TextIO | None = None) -> None:
    """Formula and trace of one model, two lines per method, in GiB; then the position of each peak."""
    if not comparisons:
        return
    first = comparisons[0]
    console = Console(file=out or sys.stdout, width=COLUMNS, highlight=False, color_system=None)
    rows = "" if first.rows == "full" else f", {first.rows}"
    where = "" if first.placement is None else f", {how(first.placement)}"
    console.print(f"{first.model}, {first.batch} x {first.seq_len} tokens{rows}{where}, GiB", markup=False)
    terms = TERMS if first.placement is None else _filled(comparisons)
    table = _table([("method", False), ("", False), *((title, True) for title in terms.values()), ("error", True)])
    for found in comparisons:
        if found.predicted is not None:
            table.add_row(found.method, "formula", *_gib_cells(found.predicted, terms), percent(found.peak_error, 2))
        if found.measured is not None:
            table.add_row("" if found.predicted else found.method, "trace", *_gib_cells(found.measured, terms), "")
    console.print(table)
    traced = [(one.method, one.measured) for one in comparisons if one.measured is not None]
    for method, figures in traced:
        console.print(f"{method} peaks in {figures.peak_at}", markup=False)
    reserved = ", ".join(f"{method} {(figures.peak_reserved_bytes or 0) / GIB:.2f}" for method, figures in traced)
    for one in comparisons:
        _print_evaluation(console, one)
        _print_loading(console, one)
    if first.rows != "full":
        console.print(FROM_SOURCE, markup=False)
    if first.placement is not None:
        return
    console.print(f"Reserved by a simulated CUDA caching allocator, GiB: {reserved}", markup=False)


def _print_evaluation(console: Console, one: Comparison) -> None:
    """The peak of an evaluation, where one was asked for."""
    error = one.error_of("evaluation_bytes")
    if one.measured is None or one.measured.evaluation_bytes is None:
        return
    predicted = None if one.predicted is None else one.predicted.evaluation_bytes
    formula = "" if predicted is None else f", formula {gib(predicted)}"
    text = f"{one.method} evaluates {one.recipe.eval_batch} rows with {gib(one.measured.evaluation_bytes)} GiB{formula}"
    console.print(text + ("" if error is None else f" ({percent(error, 2)})"), markup=False)


def _print_loading(console: Console, one: Comparison) -> None:
    """Loading and k-bit preparation of a cut of the model, where they were traced."""
    if one.loading is None:
        return
    title = f"{one.method}, {one.loading.cut or 'whole'}, MiB by formula and trace (whose"
    console.print(f"{title} quantization is the CPU's):", markup=False)
    for what, field in LOADING.items():
        predicted, measured = (getattr(side, field) for side in (one.loading.predicted, one.loading.measured))
        error = percent(predicted / measured - 1, 2)
        console.print(f"  {what:9} {mib(predicted):>9} {mib(measured):>9} {error:>8}", markup=False)


def _gib_cells(figures: Figures, terms: Mapping[str, str]) -> list[str]:
    return [gib(getattr(figures, field)) for field in terms]


def _filled(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """The terms of several cards that have a byte somewhere."""
    found = [one for each in comparisons for one in (each.predicted, each.measured) if one is not None]
    return {field: title for field, title in RANK_TERMS.items() if any(getattr(one, field) for one in found)}


def print_trace(trace: Trace, out: TextIO | None = None) -> None:
    """The static terms, the phases, and the census when the trace holds one."""
    console = Console(file=out or sys.stdout, width=TRACE_COLUMNS, highlight=False, color_system=None)
    console.print(
        f"{trace.model_type} {trace.recipe.method}, {trace.batch} x {trace.seq_len} tokens: peak "
        f"{mib(trace.peak_bytes)} MiB ({trace.peak_bytes:,} bytes) at {trace.peak_at}"
    )
    static = {name: getattr(trace, f"{name}_bytes") for name in STATIC}
    console.print("before the step, MiB: " + ", ".join(f"{name} {mib(size)}" for name, size in static.items()))
    console.print(_phase_table(trace))
    if trace.census:
        console.print("also alive at the peak:")
        console.print(_census_table(trace))
    console.print(f"traced in {trace.trace_s:.1f} s")


def _table(columns: Sequence[tuple[str, bool]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    return table


def _phase_table(trace: Trace) -> Table:
    table = _table([("phase", False), ("begin MiB", True), ("peak MiB", True), ("end MiB", True), ("peak at", False)])
    for phase in trace.phases:
        table.add_row(
            phase.phase,
            mib(phase.begin_bytes),
            mib(phase.peak_bytes),
            mib(phase.end_bytes),
            f"{phase.op} {phase.module}",
        )
    return table


def _census_table(trace: Trace) -> Table:
    table = _table(
        [
            ("MiB", True),
            ("count", True),
            ("category", False),
            ("dtype", False),
            ("shape", False),
            ("op", False),
            ("module", False),
            ("layers", False),
        ]
    )
    for row in trace.census:
        if row.category in STATIC:
            continue
        shape = "x".join(str(n) for n in row.shape) or "scalar"
        table.add_row(mib(row.bytes), str(row.count), row.category, row.dtype, shape, row.op, row.module, row.layers)
    return table
