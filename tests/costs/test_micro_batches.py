"""Micro-batches as a trainer makes them: the worst, the expected, and those of a whole job."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from statistics import fmean
from typing import Any

import pytest

from advisor.costs.micro_batches import (
    CURVED_TOKENS,
    NEGLECTED,
    MicroBatch,
    average,
    drawn,
    expected,
    length_count,
    worst,
)
from advisor.specs import Recipe, Workload

ROWS = Workload(seq_len=1000, mean_seq_len=300)
MANY = 20_000


def recipe(micro_batch: int = 4, **knobs: Any) -> Recipe:
    return Recipe(method="lora", micro_batch=micro_batch, gradient_accumulation=4, **knobs)


def rows(**changes: Any) -> Workload:
    return ROWS.model_copy(update=changes)


@pytest.mark.parametrize(
    ("workload", "used", "batch"),
    [
        (ROWS, recipe(), MicroBatch(4, 1000, True)),
        (ROWS, recipe(1), MicroBatch(1, 1000)),
        (rows(mean_seq_len=1000), recipe(), MicroBatch(4, 1000)),
        (rows(group_by_length=True), recipe(), MicroBatch(4, 1000, True)),
        (rows(padding="max_length"), recipe(), MicroBatch(4, 1000, True)),
        (rows(padding="max_length"), recipe(1), MicroBatch(1, 1000, True)),
        (rows(pad_to_multiple_of=64), recipe(1), MicroBatch(1, 1024, True)),
        (rows(pad_to_multiple_of=64, mean_seq_len=1000), recipe(1), MicroBatch(1, 1024, True)),
        (rows(pad_to_multiple_of=100, mean_seq_len=1000), recipe(), MicroBatch(4, 1000)),
        (rows(padding="none"), recipe(attention="flash"), MicroBatch(4, 1000)),
        (rows(padding="none"), recipe(), MicroBatch(1, 4000, True, True)),
        (rows(padding="none"), recipe(1), MicroBatch(1, 1000)),
        (rows(packing=True), recipe(), MicroBatch(4, 1000)),
        (rows(packing=True, packing_strategy="varlen"), recipe(), MicroBatch(4, 1000)),
        (rows(packing=True, packing_strategy="position_ids"), recipe(attention="flash"), MicroBatch(4, 1000)),
        (rows(packing=True, packing_strategy="position_ids"), recipe(), MicroBatch(1, 4000, True, True)),
        (rows(packing=True, packing_strategy="position_ids"), recipe(1), MicroBatch(1, 1000, True, True)),
    ],
)
def test_the_worst_micro_batch(workload: Workload, used: Recipe, batch: MicroBatch) -> None:
    assert worst(workload, used) == batch


def mean_of_squares(batches: Sequence[tuple[MicroBatch, float]]) -> float:
    return sum(share * batch.tokens**2 for batch, share in batches)


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 16])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mean_seq_len": 120},
        {"mean_seq_len": 900},
        {"group_by_length": True},
        {"pad_to_multiple_of": 64},
        {"padding": "max_length"},
        {"packing": True},
        {"seq_len": 16_000, "mean_seq_len": 4_800},
        {"seq_len": 16_000, "mean_seq_len": 2_000, "group_by_length": True},
    ],
    ids=str,
)
def test_the_expected_micro_batches_have_the_mean_and_the_mean_square_of_a_job(
    micro_batch: int, changes: dict[str, Any]
) -> None:
    workload, used = rows(**changes), recipe(micro_batch)
    job = list(islice(drawn(workload, used, seed=3), MANY))
    found = expected(workload, used)
    assert sum(share for _, share in found) == pytest.approx(1)
    assert average(workload, used).tokens == pytest.approx(fmean(batch.tokens for batch in job), rel=0.02)
    mean, squares = fmean(batch.tokens for batch in job), fmean(batch.tokens**2 for batch in job)
    neglected = NEGLECTED * CURVED_TOKENS * mean if len(found) == 1 else 0.0
    assert mean_of_squares(found) == pytest.approx(squares, rel=0.05, abs=neglected)
    assert max(batch.tokens for batch in job) <= worst(workload, used).tokens
    assert {batch.padded for batch, _ in found} <= {batch.padded for batch in job}


def test_a_second_length_counts_only_where_attention_does() -> None:
    assert [len(expected(rows(seq_len=n, mean_seq_len=n // 2), recipe(1))) for n in (1024, 16_384)] == [1, 2]
    assert len(expected(rows(seq_len=16_384, mean_seq_len=16_384), recipe(1))) == 1


def test_rows_that_are_not_padded_cost_as_each_alone() -> None:
    assert expected(rows(padding="none"), recipe(8, attention="flash")) == tuple(
        (batch._replace(rows=8), share) for batch, share in expected(ROWS, recipe(1))
    )


def test_packed_examples_attend_only_to_themselves_where_the_kernel_keeps_them_apart() -> None:
    workload = rows(packing=True, packing_strategy="varlen", mean_seq_len=100)
    ((batch, share),) = expected(workload, recipe(4))
    assert share == 1
    assert batch.rows * batch.tokens == pytest.approx(4000, rel=0.01)
    assert batch.tokens == pytest.approx(526, rel=0.06)  # the mean of the squares over the mean
    assert average(rows(packing=True), recipe(4)) == MicroBatch(4, 1000)


def test_the_same_seed_draws_the_same_job() -> None:
    for changes in ({}, {"group_by_length": True}):
        first, again, other = (list(islice(drawn(rows(**changes), recipe(), seed), 500)) for seed in (5, 5, 6))
        assert first == again != other


def test_a_data_set_smaller_than_four_groups_is_sorted_in_fewer_batches() -> None:
    small, large = (average(rows(group_by_length=True, examples=n), recipe(8)).tokens for n in (64, 10_000))
    assert large < small < average(ROWS, recipe(8)).tokens


@pytest.mark.parametrize(
    ("workload", "count"),
    [
        (ROWS, 1001),
        (rows(pad_to_multiple_of=100), 11),
        (rows(pad_to_multiple_of=2048), 2),  # the law of mean and limit begins at none
        (rows(length_quantiles=((0.0, 100), (1.0, 131)), pad_to_multiple_of=8), 5),  # 104, 112 ... 136
        (rows(mean_seq_len=1000), 1),
        (rows(packing=True), 1),
        (rows(group_by_length=True), 1),
    ],
)
def test_the_number_of_lengths(workload: Workload, count: int) -> None:
    assert length_count(workload) == count
