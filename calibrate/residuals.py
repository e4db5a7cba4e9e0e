"""Errors of the predictions over many records, in total and by method. Pure; needs no torch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Literal, NamedTuple

from advisor.specs import METHODS
from calibrate.checks import is_clean
from calibrate.measurement import Comparison

PEAK, RESERVED, STEP = "peak_allocated_bytes", "peak_reserved_bytes", "step_s"
SPOILED_BY: dict[str, Literal["memory", "time"]] = {PEAK: "memory", RESERVED: "memory", STEP: "time"}


class Spread(NamedTuple):
    """A summary of signed relative errors (predicted over measured, minus 1)."""

    bursts: int
    median: float
    typical: float
    """Median of the absolute errors."""
    worst: float
    """The error that is largest in absolute value, with its sign."""


def latest(records: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """The newest result of each burst, in the order in which they were first measured."""
    found: dict[str, Comparison] = {}
    for record in records:
        if record.burst is not None:
            # A measured result is not replaced by a later failure.
            if record.measured is None and record.burst.key in found and found[record.burst.key].measured is not None:
                continue
            found[record.burst.key] = record
    return tuple(found.values())


def errors(records: Iterable[Comparison], field: str) -> list[float]:
    """The errors of one figure, over records that are clean for it."""
    what = SPOILED_BY[field]
    return [error for one in records if is_clean(one, what) and (error := one.error_of(field)) is not None]


def spread(found: list[float]) -> Spread | None:
    """Their summary; None when there are none."""
    if not found:
        return None
    return Spread(len(found), statistics.median(found), statistics.median(map(abs, found)), max(found, key=abs))


def by_method(records: Iterable[Comparison], field: str) -> dict[str, list[float]]:
    """Errors of one figure by method, in the usual order; methods without any are left out."""
    every = list(records)
    found = {method: errors([one for one in every if one.method == method], field) for method in METHODS}
    return {method: values for method, values in found.items() if values}
