"""How long the rows of a data set are: one law, asked by memory, time and allocator alike.

The law is that of a data file, as quantiles, else the one that mean and maximum imply: P(length <= x) = (x / longest)^a
with the a that gives the mean. That is uniform for a mean of half the maximum, skewed to short rows below, and one
length where both are equal. The longest of k rows then follows the same law with a k in place of a.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate, pairwise
from math import ceil, sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from random import Random

Quantiles = tuple[tuple[float, int], ...]
"""(share of the rows, tokens that they do not exceed), ascending from share 0 to share 1; in between it is linear."""

EXACT = 32
"""So many different lengths are kept one by one."""
SHARES = (*(n / 32 for n in range(1, 32)), *(1 - 2.0**-n for n in range(6, 15)))
"""Of more lengths the quantiles at these shares are kept: the longest of many rows is among the last."""


def quantiles_of(counts: Mapping[int, int]) -> Quantiles:
    """The quantiles of rows, from how many there are of each length in tokens."""
    values = sorted(counts)
    upto = list(accumulate(counts[value] for value in values))
    rows = upto[-1]
    if len(values) <= EXACT:  # as steps
        begin = [0, *upto[:-1]]
        return tuple(
            (count / rows, tokens) for tokens, *ends in zip(values, begin, upto, strict=True) for count in ends
        )
    inner = ((share, values[bisect_right(upto, ceil(share * rows) - 1)]) for share in SHARES)
    return ((0.0, values[0]), *inner, (1.0, values[-1]))


def wrong_quantiles(quantiles: Quantiles, limit: int) -> str:
    """What is wrong with quantiles of rows of at most `limit` tokens, in words; '' for nothing."""
    if not quantiles:
        return ""
    shares, tokens = zip(*quantiles, strict=True)
    if (shares[0], shares[-1]) != (0, 1) or list(shares) != sorted(shares) or list(tokens) != sorted(tokens):
        return "length_quantiles must ascend from the share 0 to the share 1"
    if tokens[0] < 1 or tokens[-1] > limit:
        return f"length_quantiles must be lengths from 1 to seq_len, which is {limit:,}"
    return ""


class RowLengths(NamedTuple):
    """The law of the lengths of rows, in tokens: that of the quantiles, () for the one that mean and limit imply."""

    mean: int
    limit: int  # of a row: the longest where there are no quantiles
    quantiles: Quantiles = ()

    @property
    def ends(self) -> tuple[int, int]:
        """The shortest and the longest row."""
        if self.quantiles:
            return self.quantiles[0][1], self.quantiles[-1][1]
        return (self.limit, self.limit) if self.mean >= self.limit else (0, self.limit)

    @property
    def alike(self) -> bool:
        """Whether all rows have one length."""
        return self.ends[0] == self.ends[1]

    def longest_of(self, rows: int) -> float:
        """Expected length of the longest of `rows` rows drawn at random: the mean for one row."""
        if not self.quantiles:
            return self.limit * rows * self.mean / (rows * self.mean + self.limit - self.mean)
        return self._moment(rows, 1)

    def mean_cut_at(self, limit: int) -> float:
        """Expected length of a row after longer ones were cut to `limit` tokens, by the law of mean and limit."""
        if self.mean >= self.limit or limit >= self.limit:
            return min(self.mean, limit)
        power = self.mean / (self.limit - self.mean)
        cut: float = limit * (limit / self.limit) ** power / (power + 1)
        return limit - cut

    def spread_of(self, rows: int) -> float:
        """Standard deviation of the length of the longest of `rows` rows."""
        if self.alike:
            return 0.0
        if not self.quantiles:
            power = rows * self.mean / (self.limit - self.mean)
            return self.longest_of(rows) / sqrt(power * (power + 2))
        return sqrt(max(0.0, self._moment(rows, 2) - self._moment(rows, 1) ** 2))

    def _moment(self, rows: int, power: int) -> float:
        """Expectation of that length (power 1) or of its square (2): the integral over the quantiles."""
        total = 0.0
        for (low, short), (high, long) in pairwise(self.quantiles):
            if high <= low:
                continue
            slope = (long - short) / (high - low)
            start = short - slope * low  # the line is start + slope * share
            coefficients = (start, slope) if power == 1 else (start * start, 2 * start * slope, slope * slope)
            for n, coefficient in enumerate(coefficients):
                order = rows + n
                total += coefficient * rows / order * (high**order - low**order)
        return total

    def quantile(self, share: float) -> float:
        """Tokens that this share of the rows does not exceed."""
        if not self.quantiles:
            tokens: float = self.limit * share ** (self.limit / self.mean - 1)
            return tokens
        place = bisect_right(self.quantiles, share, key=lambda pair: pair[0])
        (low, short), (high, long) = self.quantiles[place - 1], self.quantiles[min(place, len(self.quantiles) - 1)]
        return short if high <= low else short + (long - short) * (share - low) / (high - low)

    def sample(self, rng: Random, rows: int) -> list[int]:
        """Lengths of `rows` rows drawn at random: the same for the same state of `rng`."""
        return [max(1, round(self.quantile(rng.random()))) for _ in range(rows)]

    def scaled(self, mean: float, longest: float) -> RowLengths:
        """The law with its lengths times `mean`, and its longest row and its limit times `longest`."""
        limit = max(1, round(self.limit * longest))
        most = min(limit, max(1, round(self.ends[1] * longest)))
        inner = tuple((share, max(1, min(most, round(tokens * mean)))) for share, tokens in self.quantiles[:-1])
        last = ((1.0, most),) if self.quantiles else ()
        return RowLengths(max(1, min(limit, round(self.mean * mean))), limit, (*inner, *last))
