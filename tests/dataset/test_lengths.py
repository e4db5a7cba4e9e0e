"""Counts of lengths against the same figures from the list of all lengths."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.dataset.lengths import PERCENTILES, Lengths

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def best_fit_decreasing(sizes: list[int], limit: int) -> int:
    """Rows, one item after another, as the textbook has it."""
    free: list[int] = []
    for size in sorted((min(size, limit) for size in sizes), reverse=True):
        fitting = [left for left in free if left >= size]
        if fitting:
            free.remove(min(fitting))
            free.append(min(fitting) - size)
        else:
            free.append(limit - size)
    return len(free)


@given(sizes=lengths, limit=st.integers(1, 50))
def test_packing_is_best_fit_decreasing(sizes: list[int], limit: int) -> None:
    packed = Lengths(Counter(sizes)).packed(limit)
    assert packed.rows == best_fit_decreasing(sizes, limit)
    assert packed.tokens == sum(min(size, limit) for size in sizes)


@given(sizes=lengths)
def test_percentiles_are_those_of_the_sorted_list(sizes: list[int]) -> None:
    found, ordered = Lengths(Counter(sizes)), sorted(sizes)
    for percent in PERCENTILES:
        at_most = found.percentile(percent)
        assert sum(size <= at_most for size in ordered) >= len(ordered) * percent / 100 - 1e-6
        assert sum(size < at_most for size in ordered) < len(ordered) * percent / 100
    assert found.percentile(100) == found.longest == ordered[-1]


@given(sizes=lengths, limit=st.integers(1, 50))
def test_cutting_keeps_rows_and_loses_tokens(sizes: list[int], limit: int) -> None:
    found = Lengths(Counter(sizes))
    cut = found.cut_at(limit)
    assert (cut.rows, cut.tokens) == (len(sizes), sum(min(size, limit) for size in sizes))
    assert found.rows_beyond(limit) == sum(size > limit for size in sizes)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), rows=st.integers(1, 3))
def test_the_longest_of_a_batch_is_the_mean_over_all_batches(sizes: list[int], rows: int) -> None:
    batches = [max(batch) for batch in product(sizes, repeat=rows)]
    found = Lengths(Counter(sizes))
    assert found.expected_longest(rows) == pytest.approx(sum(batches) / len(batches))
    assert found.padding(1) == pytest.approx(0)
    assert 0 <= found.padding(rows) < 1


@given(sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=60))
def test_every_row_is_in_one_bar(sizes: list[int]) -> None:
    edges, counts = Lengths(Counter(sizes)).histogram()
    assert list(edges) == sorted(set(edges))
    assert len(counts) == len(edges) - 1 <= 9
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        assert count == sum(low <= size < high for size in sizes)
    assert sum(counts) == len(sizes)
