"""The rows of a run as its batches come: how long they are, and how much padding comes with them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from advisor.lengths import Quantiles, quantiles_of


class Rows:
    """The lengths of the rows of a run, without padding, and how much padding came with them."""

    def __init__(self) -> None:
        """None was seen yet."""
        self.counts: Counter[int] = Counter()
        self.tokens = 0  # with padding

    def add(self, tokens: Any, mask: Any) -> bool:
        """Note a batch of token ids (rows, tokens) and its mask, if it has one; whether any row is padded."""
        rows, length = tokens.shape
        lengths = [int(length)] * int(rows) if mask is None or mask.ndim != 2 else mask.sum(-1).tolist()
        self.counts.update(lengths)
        self.tokens += int(rows * length)
        return bool(min(lengths) < length)

    @property
    def mean(self) -> float:
        """Tokens of an average row; 0 where none was seen."""
        return self._real / max(1, self.counts.total())

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.counts, default=0)

    @property
    def padding(self) -> float:
        """The part of all tokens that was padding."""
        return 1 - self._real / self.tokens if self.tokens else 0.0

    @property
    def quantiles(self) -> Quantiles:
        """Those of the lengths; () where all rows were alike."""
        return quantiles_of(self.counts) if len(self.counts) > 1 else ()

    @property
    def _real(self) -> int:
        return sum(length * count for length, count in self.counts.items())
