"""Orders of a job, the capacity at which it never fails, and the chance that it does."""

from __future__ import annotations

import pytest

from advisor.costs.micro_batches import evaluating, worst
from advisor.costs.simulation import (
    ALIKE_STEPS,
    ORDERS,
    Simulator,
    chance_beyond,
    default_steps,
    order_of,
    predicted,
    simulated,
)
from advisor.interval import Interval
from advisor.specs import ModelSpec, Recipe, Workload

MODEL = ModelSpec(
    name="tiny",
    architecture="llama",
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=128,
    vocab_size=32_000,
)
RECIPE = Recipe(method="lora", rank=8, micro_batch=2, gradient_accumulation=2)
MIXED = Workload(seq_len=1024, mean_seq_len=300)
ALIKE = Workload(seq_len=512, mean_seq_len=512)
STEPS = 12


@pytest.mark.parametrize("seed", range(5))
def test_an_order_holds_the_worst_micro_batch(seed: int) -> None:
    order = order_of(MIXED, RECIPE, 3, seed)
    assert [len(step.batches) for step in order] == [2, 2, 2]
    assert worst(MIXED, RECIPE) in [batch for step in order for batch in step.batches]
    assert order_of(MIXED, RECIPE, 3, seed, longest_first=True)[0].batches[0] == worst(MIXED, RECIPE)


def test_the_same_seed_gives_the_same_answer() -> None:
    first, again, other = (simulated(MODEL, RECIPE, MIXED, STEPS, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert (first.steps, first.orders) == (STEPS, ORDERS)


def test_one_length_needs_one_short_order() -> None:
    found = simulated(MODEL, RECIPE, ALIKE, 1000, 0)
    assert (found.steps, found.orders) == (ALIKE_STEPS, 1)
    assert found.reserved.is_exact


def test_mixed_lengths_reserve_more_than_the_worst_length_alone() -> None:
    mixed = simulated(MODEL, RECIPE, MIXED, STEPS, 0).reserved.likely
    alone = simulated(MODEL, RECIPE, Workload(seq_len=1024, mean_seq_len=1024), STEPS, 0).reserved.likely
    assert mixed > 1.1 * alone


def test_the_job_fails_below_the_smallest_capacity_and_not_at_it() -> None:
    order = order_of(MIXED, RECIPE, STEPS, 0)
    simulator = Simulator(MODEL, RECIPE, [order])
    needed = simulator.needed_bytes(order)
    assert not simulator.fails(order, needed)
    assert simulator.fails(order, round(0.95 * needed))
    assert needed <= simulator.reserved_bytes(order)


def test_more_capacity_never_makes_it_likelier_to_fail() -> None:
    needed = (Interval(2.0, 3.0, 4.0), Interval(4.0, 5.0, 6.0))
    assert [chance_beyond(needed, float(size)) for size in range(1, 8)] == [1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert [chance_beyond([Interval.exact(3.0)], size) for size in (2.0, 3.0)] == [1.0, 0.0]


def test_expandable_segments_reserve_less_and_leave_what_must_fit_open() -> None:
    expandable = RECIPE.model_copy(update={"expandable_segments": True})
    plain, found = (simulated(MODEL, recipe, MIXED, STEPS, 0) for recipe in (RECIPE, expandable))
    assert (found.needed, found.each) == (None, ())
    assert found.reserved.likely < plain.reserved.likely


def test_bounds_hold_the_spread_of_the_tensors() -> None:
    exact = simulated(MODEL, RECIPE, MIXED, 8, 0)
    wide = simulated(MODEL, RECIPE, MIXED, 8, 0, spread=(0.1, 0.2))
    assert wide.needed is not None
    assert exact.needed is not None
    assert wide.needed.low == pytest.approx(0.9 * exact.needed.low)
    assert wide.reserved.high == pytest.approx(1.2 * exact.reserved.high)
    assert wide.each[0] == Interval.around(exact.each[0].likely, 0.1, 0.2)


def test_an_evaluation_follows_every_so_many_steps_and_is_never_the_end_alone() -> None:
    evaluated = RECIPE.model_copy(update={"eval_batch": 4})
    few = Workload(seq_len=1024, mean_seq_len=300, eval_examples=12)

    def where(every: int, steps: int) -> list[int]:
        order = order_of(few, evaluated, steps, 0, evaluate_every=every)
        return [at for at, step in enumerate(order, 1) if step.evaluation]

    assert (where(3, 8), where(1000, 8), where(0, 8)) == ([3, 6], [4, 8], [])
    order = order_of(few, evaluated, 8, 0, evaluate_every=3)
    assert order[2].evaluation == order[5].evaluation  # the same rows each time
    assert len(order[2].evaluation) == 3
    assert worst(few, evaluating(evaluated)) in order[2].evaluation


def test_a_large_evaluation_counts_and_a_small_one_does_not() -> None:
    def needed(rows: int) -> float:
        recipe = RECIPE.model_copy(update={"eval_batch": rows})
        found = simulated(MODEL, recipe, MIXED, STEPS, 0, evaluate_every=4).needed
        assert found is not None
        return found.likely

    plain = simulated(MODEL, RECIPE, MIXED, STEPS, 0).needed
    assert plain is not None
    assert needed(1) == pytest.approx(plain.likely, rel=0.1)
    assert needed(32) > 2 * plain.likely


def test_a_further_order_is_predicted_from_the_replayed_ones() -> None:
    sizes = [8.0, 9.0, 10.0, 11.0, 12.0]
    found = predicted(sizes)
    assert found.low < 8 < found.likely < 12 < found.high
    assert found.likely == pytest.approx(9.9, abs=0.05)
    assert predicted([5.0]) == Interval.exact(5.0)
    assert predicted([5.0] * 5) == Interval.exact(5.0)


def test_as_many_micro_batches_are_replayed_where_gradients_are_large() -> None:
    found = [
        default_steps(MODEL, Recipe(method=method, rank=8, gradient_accumulation=repeats))
        for method in ("lora", "full")
        for repeats in (1, 2, 16)
    ]
    assert found == [1000, 1000, 125, 1000, 500, 63]


def test_each_replayed_step_is_told() -> None:
    told = []
    simulated(MODEL, RECIPE, ALIKE, 5, 0, on_step=lambda: told.append(1))
    assert len(told) >= 10  # the whole order twice at least: with room, and with less and less of it


def test_tensors_beside_the_models_are_held() -> None:
    plain, beside = (simulated(MODEL, RECIPE, ALIKE, 3, 0, aside).reserved.likely for aside in ((), (2**28,)))
    assert beside - plain == 2**28
