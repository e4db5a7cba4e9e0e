"""The law of the lengths of rows: against textbooks, and against all rows of small data sets."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.lengths import EXACT, RowLengths, quantiles_of
from advisor.specs import Workload

few_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(st.integers(1, 10_000), st.integers(1, 10**6), st.floats(1, 100))
def test_the_longest_of_many_rows_lies_between_mean_and_maximum(rows: int, mean: int, factor: float) -> None:
    lengths = RowLengths(mean, round(mean * factor))
    found = lengths.longest_of(rows)
    assert lengths.longest_of(1) == pytest.approx(mean)
    assert mean * (1 - 1e-9) <= found <= lengths.limit * (1 + 1e-9)
    assert found <= lengths.longest_of(rows + 1) * (1 + 1e-9)
    assert lengths.longest_of(10**9) == pytest.approx(lengths.limit, rel=1e-5)


def test_uniform_rows_are_the_textbook_case() -> None:
    for rows in (1, 2, 3, 9):
        lengths = RowLengths(500, 1000)
        assert lengths.longest_of(rows) == pytest.approx(1000 * rows / (rows + 1))
        assert lengths.spread_of(rows) == pytest.approx(1000 * (rows / ((rows + 1) ** 2 * (rows + 2))) ** 0.5)
        assert lengths.quantile(0.3) == pytest.approx(300)


@given(few_lengths, st.integers(1, 4))
def test_the_longest_of_rows_of_a_file_is_that_over_all_batches(sizes: list[int], rows: int) -> None:
    lengths = RowLengths(1, 40, quantiles_of(Counter(sizes)))
    batches = [max(batch) for batch in product(sizes, repeat=rows)]
    assert lengths.longest_of(rows) == pytest.approx(fmean(batches))
    assert lengths.spread_of(rows) == pytest.approx(pstdev(batches), abs=1e-4)


def test_many_different_lengths_are_kept_as_quantiles() -> None:
    rng = Random(1)
    sizes = [max(1, round(rng.lognormvariate(5.5, 0.8))) for _ in range(20_000)]
    lengths = RowLengths(1, max(sizes), quantiles_of(Counter(sizes)))
    assert EXACT < len(lengths.quantiles) < 2 * EXACT
    assert lengths.longest_of(1) == pytest.approx(fmean(sizes), rel=0.01)
    assert lengths.spread_of(1) == pytest.approx(pstdev(sizes), rel=0.03)
    for rows in (8, 64):
        batches = [max(rng.choices(sizes, k=rows)) for _ in range(4000)]
        assert lengths.longest_of(rows) == pytest.approx(fmean(batches), rel=0.03)


@pytest.mark.parametrize(
    "lengths",
    [RowLengths(300, 1000), RowLengths(1, 900, quantiles_of({100: 40, 500: 30, 900: 7}))],
    ids=["implied", "of a file"],
)
def test_samples_follow_the_law_and_the_seed(lengths: RowLengths) -> None:
    found = lengths.sample(Random(7), 20_000)
    assert found == lengths.sample(Random(7), 20_000) != lengths.sample(Random(8), 20_000)
    assert fmean(found) == pytest.approx(lengths.longest_of(1), rel=0.02)
    assert pstdev(found) == pytest.approx(lengths.spread_of(1), rel=0.02)
    assert 1 <= min(found) <= max(found) <= lengths.ends[1]


def test_rows_of_one_length() -> None:
    for lengths in (RowLengths(512, 512), RowLengths(300, 512, quantiles_of({300: 9}))):
        assert lengths.alike
        assert lengths.spread_of(4) == 0
        assert lengths.sample(Random(0), 3) == [lengths.ends[0]] * 3
    assert not RowLengths(511, 512).alike


def test_scaled_lengths_keep_their_order_and_their_limit() -> None:
    lengths = RowLengths(329, 900, quantiles_of({100: 40, 500: 30, 900: 7})).scaled(1.9, 1.0)
    assert (lengths.mean, lengths.limit, lengths.ends) == (625, 900, (190, 900))
    assert [tokens for _, tokens in lengths.quantiles] == [190, 190, 900, 900, 900, 900]


@pytest.mark.parametrize(
    ("quantiles", "words"),
    [
        (((0.0, 5), (0.5, 9)), "ascend"),
        (((0.0, 9), (1.0, 5)), "ascend"),
        (((0.0, 5), (0.7, 6), (0.6, 7), (1.0, 9)), "ascend"),
        (((0.0, 0), (1.0, 5)), "from 1 to seq_len"),
        (((0.0, 5), (1.0, 2000)), "from 1 to seq_len, which is 1,024"),
    ],
)
def test_quantiles_that_contradict_themselves_are_refused(quantiles: tuple[tuple[float, int], ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Workload(length_quantiles=quantiles)


def test_a_workload_survives_json() -> None:
    workload = Workload(length_quantiles=quantiles_of({100: 40, 500: 30, 900: 7}))
    assert Workload.model_validate_json(workload.model_dump_json()) == workload


@given(mean=st.integers(1, 999), limit=st.integers(1, 1000))
def test_the_mean_of_cut_rows_is_that_of_drawn_ones(mean: int, limit: int) -> None:
    law = RowLengths(mean, 1000)
    shares = [(n + 0.5) / 4000 for n in range(4000)]
    drawn = sum(min(law.quantile(share), limit) for share in shares) / len(shares)
    assert law.mean_cut_at(limit) == pytest.approx(drawn, rel=0.01, abs=0.5)
    assert law.mean_cut_at(1000) == mean
    assert RowLengths(700, 700).mean_cut_at(limit) == min(700, limit)
