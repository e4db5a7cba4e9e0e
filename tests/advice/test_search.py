"""Search: what is fixed stays, what is open is the best that fits, with few estimates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.advice.advise import advise
from advisor.advice.search import (
    Job,
    best_outcome,
    end_cards,
    first_recipe,
    last_that_fits,
    micro_batch_options,
    time_over_cards,
    verdict_of,
)
from advisor.knobs import read_question
from advisor.specs import METHODS, Estimate, GpuSpec, Method, Placement, Recipe, Workload
from advisor.units import GIB
from tests.fakes import MODEL, CountingEstimator, card, fake_estimate


def job(gib: float = 24, fixed: dict[str, object] | None = None, batch: int = 16, seq_len: int = 1024) -> Job:
    workload = Workload(examples=1000, seq_len=seq_len, mean_seq_len=seq_len // 2, batch_size=batch)
    return Job(MODEL, workload, Placement(), (card(gib),), read_question(fixed or {}), fake_estimate)


def all_recipes(one: Job, method: Method) -> list[Estimate]:
    """Every recipe that search may choose from, estimated."""
    start = first_recipe(one, method)
    return [
        one.estimate(
            start.model_copy(
                update={
                    "gradient_checkpointing": checkpointing,
                    "micro_batch": n,
                    "gradient_accumulation": one.workload.batch_size // n,
                }
            )
        )
        for checkpointing in (False, True)
        for n in micro_batch_options(one)
    ]


@given(
    count=st.integers(1, 60),
    last=st.integers(-1, 59),
    near=st.integers(-5, 70),
)
def test_galloping_finds_the_last_that_fits(count: int, last: int, near: int) -> None:
    last = min(last, count - 1)
    calls: list[int] = []

    def fits(index: int) -> bool:
        calls.append(index)
        return index <= last

    assert last_that_fits(count, fits, near) == last
    assert len(calls) == len(set(calls)), "an index was asked twice"
    assert all(0 <= index < count for index in calls)
    if near == last:
        assert len(calls) <= 2


@given(
    method=st.sampled_from(METHODS),
    gib=st.sampled_from([2, 3, 5, 8, 12, 16, 24, 48, 80]),
    batch=st.sampled_from([1, 2, 7, 12, 16, 60, 64]),
    seq_len=st.sampled_from([64, 512, 2048]),
)
def test_the_choice_is_the_best_of_all_recipes(method: Method, gib: int, batch: int, seq_len: int) -> None:
    one = job(gib, batch=batch, seq_len=seq_len)
    outcome = best_outcome(one, method)
    every = all_recipes(one, method)
    fitting = [e for e in every if verdict_of(e, gib * GIB) == "fits"]
    if fitting:
        assert outcome.verdict == "fits"
        best = min(e.time.total_s.likely for e in fitting if e.time)
        assert outcome.estimate.time is not None
        assert outcome.estimate.time.total_s.likely <= best * 1.01
    else:
        assert outcome.verdict != "fits"
        needed = outcome.estimate.memory.needed_bytes.likely
        assert needed == min(e.memory.needed_bytes.likely for e in every)
    recipe = outcome.estimate.recipe
    assert recipe.micro_batch * recipe.gradient_accumulation == batch


@given(method=st.sampled_from(METHODS), near=st.integers(0, 64), batch=st.sampled_from([16, 48]))
def test_hints_do_not_change_the_answer(method: Method, near: int, batch: int) -> None:
    one = job(12, batch=batch)
    plain, hinted = best_outcome(one, method), best_outcome(one, method, {False: near, True: near})
    assert plain.largest == hinted.largest
    assert plain.verdict == hinted.verdict
    assert plain.estimate.time is not None
    assert hinted.estimate.time is not None
    assert hinted.estimate.time.total_s.likely <= plain.estimate.time.total_s.likely * 1.01


@pytest.mark.parametrize(
    ("gib", "verdict"), [(10.51, "fits"), (10.49, "tight"), (10.01, "tight"), (9.99, "does_not_fit")]
)
def test_verdict_boundaries(gib: float, verdict: str) -> None:
    one = job().estimate(first_recipe(job(), "lora"))
    device = one.memory.needed_bytes._replace(low=9.5 * GIB, likely=10 * GIB, high=10.5 * GIB)
    changed = one.model_copy(update={"memory": one.memory.model_copy(update={"needed_bytes": device})})
    assert verdict_of(changed, int(gib * GIB)) == verdict


def test_fixed_knobs_are_kept_exactly() -> None:
    fixed: dict[str, object] = {
        "rank": 7,
        "alpha": 3.5,
        "target_modules": ("q_proj",),
        "dropout": 0.25,
        "base_dtype": "float32",
        "adapter_dtype": "bfloat16",
        "autocast": False,
        "optimizer": "sgd",
        "gradient_checkpointing": True,
        "reentrant": True,
        "attention": "eager",
        "loss": "chunked",
        "micro_batch": 4,
        "quant": "fp4",
        "double_quant": False,
        "kbit_upcast": False,
    }
    recipe = best_outcome(job(fixed=fixed), "qlora").estimate.recipe
    assert {name: getattr(recipe, name) for name in fixed} == fixed
    assert recipe.gradient_accumulation == 4


def test_a_knob_without_meaning_stays_out_of_the_recipe() -> None:
    fixed: dict[str, object] = {"quant": "fp4", "double_quant": True, "rank": 99, "dropout": 0.5}
    lora = first_recipe(job(fixed=fixed), "lora")
    assert (lora.quant, lora.double_quant, lora.rank) == ("none", False, 99)
    full = first_recipe(job(fixed=fixed), "full")
    assert (full.rank, full.dropout) == (16, 0.0)


def test_int8_has_no_second_quantization() -> None:
    assert first_recipe(job(fixed={"quant": "int8"}), "qlora").double_quant is False


@pytest.mark.parametrize(
    ("generation", "method", "dtype"),
    [
        ("Turing", "lora", "float16"),
        ("Turing", "full", "float32"),
        ("Ada", "lora", "bfloat16"),
        ("", "lora", "bfloat16"),
    ],
)
def test_cards_without_bf16_get_fp16(generation: str, method: Method, dtype: str) -> None:
    one = job()._replace(cards=(card(24, generation=generation, bf16=False),))
    assert first_recipe(one, method).base_dtype == dtype


def test_a_high_rank_that_does_not_fit_falls_back() -> None:
    big = job(24)._replace(rank=512)
    assert best_outcome(big, "lora").estimate.recipe.rank == 512
    small = job(4)._replace(rank=512)
    recipe = best_outcome(small, "lora").estimate.recipe
    assert (recipe.rank, recipe.alpha) == (16, 32.0)
    kept = best_outcome(job(4, fixed={"rank": 512}), "lora")
    assert kept.estimate.recipe.rank == 512


@given(
    plain=st.sampled_from(["lora", "qlora"]),
    gib=st.floats(1, 24),
    rank=st.sampled_from([16, 64, 512]),
    batch=st.sampled_from([1, 6, 16]),
    fixed=st.sampled_from([{}, {"gradient_checkpointing": False}, {"rank": 64}]),
)
def test_the_plain_methods_answer_does_not_change_doras(
    plain: Method, gib: float, rank: int, batch: int, fixed: dict[str, object]
) -> None:
    one = job(gib, fixed, batch)._replace(rank=rank)
    before = best_outcome(one, plain)
    dora: Method = "dora" if plain == "lora" else "qdora"
    bounded, free = best_outcome(one, dora, before.largest, before), best_outcome(one, dora)
    assert bounded.verdict == free.verdict
    if free.verdict == "fits":
        assert bounded.estimate.time is not None
        assert free.estimate.time is not None
        assert bounded.estimate.time.total_s.likely <= free.estimate.time.total_s.likely * 1.01
    else:
        assert bounded.estimate == free.estimate


def test_smallest_means_least_memory() -> None:
    recipe = best_outcome(job(80)._replace(smallest=True), "lora").estimate.recipe
    assert (recipe.micro_batch, recipe.gradient_checkpointing) == (1, True)


def test_all_methods_together_need_few_estimates() -> None:
    counter = CountingEstimator()
    advise(MODEL, card(16), 1000, estimator=counter)
    assert len(counter.recipes) <= 25


@pytest.mark.parametrize("method", METHODS)
def test_no_recipe_is_estimated_twice(method: Method) -> None:
    counter = CountingEstimator()
    best_outcome(job(6)._replace(estimator=counter), method)
    assert len(set(counter.recipes)) == len(counter.recipes)


def test_time_over_cards_spans_the_slowest_and_the_fastest() -> None:
    cards = (card(24, "slow", tflops=50), card(24, "fast", tflops=200), card(24, "middle", tflops=100))
    one = job()._replace(cards=cards)
    recipe = first_recipe(one, "lora")
    times = time_over_cards(one, one.estimate(recipe), one.cards)
    assert times is not None
    assert (times.fastest, times.slowest) == ("fast", "slow")
    single = {c.name: fake_estimate(MODEL, recipe, one.workload, c).time for c in cards}
    assert single["fast"] is not None
    assert single["slow"] is not None
    assert times.time.total_s.low == single["fast"].total_s.low
    assert times.time.total_s.high == single["slow"].total_s.high
    assert times.time.total_s.low < times.time.total_s.likely < times.time.total_s.high


def test_cards_of_unknown_speed_have_no_time() -> None:
    unknown = GpuSpec(name="a card with 24 GB", generation="", memory_bytes=24 * GIB, marketed_gb=24)
    one = job()._replace(cards=(unknown, unknown))
    assert time_over_cards(one, one.estimate(Recipe(method="lora")), one.cards) is None
    assert best_outcome(one._replace(cards=(unknown,)), "lora").estimate.time is None


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=8))
def test_end_cards_hold_every_extreme(rates: list[tuple[int, int]]) -> None:
    cards = [card(24, str(i), tflops=t, bandwidth=b * 1e11) for i, (t, b) in enumerate(rates)]
    ends = end_cards(cards)
    for weight in (0.0, 0.3, 1.0):  # any mixture of the two rates has its extremes among the ends

        def cost(c: GpuSpec, weight: float = weight) -> float:
            return weight / c.bf16_flop_per_s * 1e12 + (1 - weight) / c.memory_bytes_per_s * 1e11

        assert min(map(cost, ends)) == min(map(cost, cards))
        assert max(map(cost, ends)) == max(map(cost, cards))


def test_each_card_does_its_part_of_the_batch() -> None:
    one = job(80, batch=32)._replace(placement=Placement(gpus=4))
    assert micro_batch_options(one) == (1, 2, 4, 8)
    recipe = best_outcome(one, "lora").estimate.recipe
    assert recipe.micro_batch * recipe.gradient_accumulation == 8
