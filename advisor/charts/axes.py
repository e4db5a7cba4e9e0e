"""Axes: where a value stands between two ends, and the round values to write beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

MAX_TICKS = 7

Format = Callable[[float], str]


class Axis(NamedTuple):
    """A range of values, linear or logarithmic, and how to format a value."""

    low: float
    high: float
    log: bool
    title: str
    write: Format

    def share(self, value: float) -> float:
        """The position of a value, from 0 at the low end to 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values for the axis labels."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [m * 10.0**e for e in range(first, last + 1) for m in steps]
                found = [value for value in found if self.low <= value <= self.high]
                if 2 <= len(found) <= MAX_TICKS:
                    return found
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        step = next(step * m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= MAX_TICKS)
        return [step * n for n in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def log_axis(values: Iterable[float], title: str, write: Format) -> Axis:
    """An axis that holds all values, which must be positive, with some margin."""
    found = list(values)
    return Axis(min(found) / 1.2, max(found) * 1.2, True, title, write)


def symmetric_axis(values: Iterable[float], title: str, write: Format, least: float) -> Axis:
    """An axis around zero, at least from -least to +least."""
    reach = max([least, *(1.15 * abs(value) for value in values)])
    return Axis(-reach, reach, False, title, write)
