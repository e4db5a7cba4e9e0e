"""Lengths of rows as a table of counts: percentiles, what a limit cuts, padding and packing.

Lengths are whole tokens, so that counts of each length are all that is kept, and every figure is exact.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from itertools import accumulate
from math import ceil
from typing import NamedTuple

PERCENTILES = (1.0, 5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
BARS = 8


class Packed(NamedTuple):
    """Rows of full length, and the tokens that they hold."""

    rows: int
    tokens: int


class Lengths:
    """Lengths of at least one row in tokens, by how often they occur."""

    def __init__(self, counts: Counter[int]) -> None:
        self.values = sorted(counts)
        self.counts = [counts[value] for value in self.values]
        self.rows = sum(self.counts)
        self.tokens = sum(value * count for value, count in zip(self.values, self.counts, strict=True))
        self._below = list(accumulate(self.counts))  # rows up to each length

    @property
    def by_length(self) -> dict[int, int]:
        """Rows by their length."""
        return dict(zip(self.values, self.counts, strict=True))

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self.values[-1]

    def percentile(self, percent: float) -> int:
        """The smallest length that at least so many percent of the rows do not exceed (nearest rank)."""
        rank = max(1, ceil(self.rows * percent / 100 - 1e-9))
        return next(value for value, below in zip(self.values, self._below, strict=True) if below >= rank)

    def histogram(self, bars: int = BARS) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(edges, counts): rows of edges[i] <= length < edges[i + 1], in steps of a round width.

        The last step takes all beyond 95 % of the rows, so that one long row does not flatten the rest.
        """
        least, most = self.values[0], self.percentile(95)
        width = _round_up(ceil((most + 1 - least) / (bars - 2)))
        first = least // width
        edges = [width * place for place in range(first, most // width + 2)]
        if edges[-1] <= self.longest:
            edges.append(self.longest + 1)
        counts = [0] * (len(edges) - 1)
        for value, count in zip(self.values, self.counts, strict=True):
            counts[min(value // width - first, len(counts) - 1)] += count
        return tuple(edges), tuple(counts)

    def cut_at(self, limit: int) -> Lengths:
        """The lengths after rows were cut to `limit` tokens."""
        if limit >= self.longest:
            return self
        cut: Counter[int] = Counter()
        for value, count in zip(self.values, self.counts, strict=True):
            cut[min(value, limit)] += count
        return Lengths(cut)

    def rows_beyond(self, limit: int) -> int:
        """Rows of more than `limit` tokens."""
        return sum(count for value, count in zip(self.values, self.counts, strict=True) if value > limit)

    def expected_longest(self, rows: int) -> float:
        """Expected length of the longest of `rows` rows drawn at random: what a padded micro-batch is as long as."""
        total, before = 0.0, 0.0
        for value, below in zip(self.values, self._below, strict=True):
            share = (below / self.rows) ** rows
            total, before = total + value * (share - before), share
        return total

    def padding(self, rows: int) -> float:
        """Share of padding in the tokens of micro-batches of `rows` rows, drawn at random, padded to their longest."""
        padded = self.expected_longest(rows) * self.rows
        return max(0.0, 1 - self.tokens / padded) if padded else 0.0

    def packed(self, limit: int) -> Packed:
        """Rows of `limit` tokens that hold all rows, cut to it, each where it fits best, the longest first.

        This is best-fit decreasing, as trl 1.16 packs by default (trl/data_utils.py, _pack_bfd).
        """
        room: Counter[int] = Counter()  # rows by the tokens that are still free in them
        free: list[int] = []  # its keys, sorted
        rows = tokens = 0
        for value, count in zip(reversed(self.values), reversed(self.counts), strict=True):
            length = min(value, limit)
            if length == 0:
                continue
            tokens += length * count
            while count:
                place = bisect_left(free, length)
                left = free[place] if place < len(free) else limit
                many = left // length  # that fit into one of them
                if place == len(free):
                    filled = max(1, count // many)
                    rows += filled
                else:
                    filled = min(room[left], max(1, count // many))
                    room[left] -= filled
                    if not room[left]:
                        del free[place]
                put = min(many, count)
                count -= put * filled
                rest = left - put * length
                if rest and not room[rest]:
                    insort(free, rest)
                room[rest] += filled
        return Packed(max(1, rows), tokens)


def _round_up(width: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50 ..."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power >= width:
                return step * power
        power *= 10
