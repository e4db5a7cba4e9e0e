"""An estimate whose intervals reach from those of its shortest rows to those of its longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from advisor.costs.peaks import MEMORY_COUNTERS, MOMENT_COUNTERS
from advisor.interval import Interval
from advisor.specs import MemoryEstimate, Moment, TimeEstimate

DURATIONS = ("micro_step_s", "step_s", "total_s", "energy_j", "evaluation_s")
Spec = TypeVar("Spec", MemoryEstimate, Moment, TimeEstimate)


def spanning_times(
    low: TimeEstimate | None, likely: TimeEstimate | None, high: TimeEstimate | None
) -> TimeEstimate | None:
    """The `likely` time with intervals from the `low` to the `high` one; None where one is not known."""
    if low is None or likely is None or high is None:
        return None
    return _spanning(low, likely, high, DURATIONS)


def spanning_memory(low: MemoryEstimate, likely: MemoryEstimate, high: MemoryEstimate) -> MemoryEstimate:
    """The same of memory and each of its moments."""
    moments = zip(low.moments, likely.moments, high.moments, strict=True)
    wider = tuple(_spanning(*of_moment, MOMENT_COUNTERS) for of_moment in moments)
    return _spanning(low, likely, high, MEMORY_COUNTERS).model_copy(update={"moments": wider})


def _spanning(low: Spec, likely: Spec, high: Spec, names: Sequence[str]) -> Spec:
    """`likely` with these intervals reaching from those of `low` to those of `high`."""
    found = [(name, [getattr(one, name) for one in (low, likely, high)]) for name in names]
    wider = {name: Interval.spanning(*intervals) for name, intervals in found if None not in intervals}
    return likely.model_copy(update=wider)
