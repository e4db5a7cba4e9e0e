"""How often a published figure lies in the interval that an answer states, by counter, and how wide the interval is."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from advisor.interval import Interval
from advisor.validation.report import validate
from advisor.validation.timing import validate_time

STEP_TIME = "step time"


class Held(NamedTuple):
    """One published figure and the interval that is stated of it, in bytes or seconds."""

    counter: str
    row: str
    group: str
    measured: float
    stated: Interval

    @property
    def inside(self) -> bool:
        """Whether the figure lies in the interval."""
        return self.stated.low <= self.measured <= self.stated.high

    @property
    def width(self) -> float:
        """The interval's width over its likely value."""
        return (self.stated.high - self.stated.low) / self.stated.likely

    @property
    def error(self) -> float:
        """The likely value over the measured one, minus 1."""
        return self.stated.likely / self.measured - 1


class Coverage(NamedTuple):
    """One counter: its figures, how many lie inside, how wide the intervals and how large the errors are (medians)."""

    counter: str
    figures: int
    inside: int
    width: float
    error: float

    @property
    def share(self) -> float:
        """The part of the figures that lie inside."""
        return self.inside / self.figures


def held_figures() -> list[Held]:
    """Every published figure that can be asked for. Compiled steps, which the estimate does not know, are left out."""
    memory = [
        Held(line.figure.counter, line.row["id"], line.row["group"], one.measured_bytes, one.stated_bytes)
        for line in validate().lines
        for one in (line.figure,)
    ]
    times = [
        Held(STEP_TIME, one.row["id"], one.row["group"], one.measured_s, one.estimate.step_s)
        for one in validate_time().rows
        if not one.compiled
    ]
    return memory + times


def coverages(found: list[Held]) -> list[Coverage]:
    """One line for each counter, in the order in which they appear."""
    counters = dict.fromkeys(one.counter for one in found)
    return [_coverage(name, [one for one in found if one.counter == name]) for name in counters]


def _coverage(name: str, found: list[Held]) -> Coverage:
    return Coverage(
        name,
        len(found),
        sum(one.inside for one in found),
        median(one.width for one in found),
        median(abs(one.error) for one in found),
    )


def coverage_document(found: list[Held]) -> dict[str, Any]:
    """The table and its figures as one JSON document."""
    return {
        "schema_version": 1,
        "counters": [{**one._asdict(), "share": round(one.share, 4)} for one in coverages(found)],
        "figures": [
            {**one._asdict(), "stated": one.stated._asdict(), "inside": one.inside, "error": round(one.error, 4)}
            for one in found
        ],
    }


def coverage_lines(found: list[Held]) -> Iterator[str]:
    """The table in words, and the figures outside."""
    yield f"{'counter':12} {'figures':>7} {'inside':>6} {'share':>6} {'median width':>12} {'median error':>12}"
    for line in coverages(found):
        yield (
            f"{line.counter:12} {line.figures:7} {line.inside:6} {line.share:6.0%} {line.width:12.0%} "
            f"{line.error:12.1%}"
        )
    yield "width: high less low, over likely; inside: low <= measured <= high"
    outside = [one for one in found if not one.inside]
    if outside:
        yield ""
        yield f"{'outside':20} {'counter':12} {'measured':>9} {'low':>9} {'likely':>9} {'high':>9} {'error':>7}"
    for one in outside:
        unit = 1.0 if one.counter == STEP_TIME else 2.0**30
        numbers = (one.measured, *one.stated)
        yield (
            f"{one.row:20} {one.counter:12} {' '.join(f'{number / unit:9.3f}' for number in numbers)} {one.error:+7.1%}"
        )
