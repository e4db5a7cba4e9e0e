"""Search: what is fixed stays, what is open is the best that fits, with few estimates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.advice.advise import advise
from advisor.advice.candidates import searched
from advisor.advice.card_times import end_cards, time_over_cards
from advisor.advice.job import Job, first_recipe, verdict_of
from advisor.advice.search import BAND, best_outcome, last_that_fits, micro_batch_options
from advisor.catalog import find_model
from advisor.costs.estimation import estimate
from advisor.knobs import read_question
from advisor.specs import METHODS, Estimate, GpuSpec, Method, Placement, Recipe, Workload
from advisor.units import GIB
from tests.fakes import FIXED_STEP_S, MODEL, CountingEstimator, card, fake_estimate


def job(gib: float = 24, fixed: dict[str, object] | None = None, batch: int = 16, seq_len: int = 1024) -> Job:
    workload = Workload(examples=1000, seq_len=seq_len, mean_seq_len=seq_len // 2, batch_size=batch)
    return Job(MODEL, workload, Placement(), (card(gib),), read_question(fixed or {}), fake_estimate)


def all_plans(one: Job, method: Method) -> list[Estimate]:
    """Every plan that search may choose from, estimated."""
    start = first_recipe(one, method)
    return [
        one.estimate(
            start.model_copy(
                update={
                    "expandable_segments": expandable,
                    "gradient_checkpointing": checkpointing,
                    "micro_batch": n,
                    "gradient_accumulation": one.workload.batch_size // n,
                }
            )
        )
        for expandable in (False, True)
        for checkpointing in (False, True)
        for n in micro_batch_options(one)
    ]


def needed(one: Estimate) -> float:
    return one.memory.needed_bytes.high


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


def check_best(one: Job, method: Method) -> None:
    """The outcome is what the rule of choice gives over the whole grid."""
    memory_bytes = one.smallest_card.memory_bytes
    outcome, every = best_outcome(one, method), all_plans(one, method)
    recipe = outcome.estimate.recipe
    assert recipe.micro_batch * recipe.gradient_accumulation == one.workload.batch_size
    fitting = {e.recipe: e for e in every if needed(e) <= memory_bytes}
    if not fitting:
        assert outcome.verdict == min((verdict_of(e, memory_bytes) for e in every), key=("tight", "does_not_fit").index)
        assert outcome.verdict != "tight" or needed(outcome.estimate) == min(map(needed, every))
        return
    assert outcome.verdict == "fits"
    alike = [e for e in every if e.recipe.expandable_segments is recipe.expandable_segments]
    assert needed(outcome.least) == min(map(needed, alike))
    times = {key: e.time.total_s.likely for key, e in fitting.items() if e.time}
    band = [e for key, e in fitting.items() if times[key] <= min(times.values()) * BAND]
    plain = [e for e in band if not e.recipe.expandable_segments]
    assert outcome.estimate in band
    assert recipe.expandable_segments is not bool(plain)
    assert needed(outcome.estimate) == min(map(needed, plain or band))


@given(
    method=st.sampled_from(METHODS),
    gib=st.sampled_from([2, 3, 5, 8, 12, 16, 24, 48, 80]),
    batch=st.sampled_from([1, 2, 7, 12, 16, 60, 64]),
    seq_len=st.sampled_from([64, 512, 2048]),
)
def test_the_choice_is_the_best_of_all_plans(method: Method, gib: int, batch: int, seq_len: int) -> None:
    check_best(job(gib, batch=batch, seq_len=seq_len), method)


@settings(max_examples=25)
@given(
    method=st.sampled_from(METHODS),
    model=st.sampled_from(("pythia-410m", "gemma-3-270m", "smollm2-1.7b", "qwen2.5-3b", "olmoe-1b-7b")),
    gib=st.floats(1, 40),
    batch=st.sampled_from([1, 6, 16, 60]),
    lengths=st.sampled_from([(128, 128), (512, 100), (2048, 1000)]),
)
def test_the_choice_is_the_best_of_all_plans_by_the_real_estimate(
    method: Method, model: str, gib: float, batch: int, lengths: tuple[int, int]
) -> None:
    workload = Workload(examples=1000, seq_len=lengths[0], mean_seq_len=lengths[1], batch_size=batch)
    question = read_question({})
    check_best(Job(find_model(model), workload, Placement(), (card(gib),), question, estimate), method)


@settings(max_examples=15)
@given(gib=st.floats(4, 80), more=st.floats(1.01, 4), model=st.sampled_from(("qwen2.5-3b", "llama-3.2-1b", "gpt2-xl")))
def test_more_memory_is_never_slower(gib: float, more: float, model: str) -> None:
    small, large = (advise(model, card(size), 1000, seq_len=700).candidates for size in (gib, gib * more))
    for before, after in zip(small, large, strict=True):
        if before.verdict == "fits" and before.recipe.target_modules == after.recipe.target_modules:
            assert after.verdict == "fits"
            assert before.time is not None
            assert after.time is not None
            assert after.time.total_s.likely <= before.time.total_s.likely


@settings(max_examples=15)
@given(gib=st.floats(4, 80), model=st.sampled_from(("starcoder2-3b", "llama-3.2-1b", "olmoe-1b-7b")))
def test_a_method_alone_gets_the_row_of_the_table(gib: float, model: str) -> None:
    for row in advise(model, card(gib), 3000, seq_len=700).candidates:
        (alone,) = advise(model, card(gib), 3000, seq_len=700, method=row.method).candidates
        assert (alone.recipe, alone.memory, alone.time) == (row.recipe, row.memory, row.time)


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


@pytest.mark.parametrize(
    ("dora_s", "targets"), [(0.002, ("all-linear",)), (0.5, ("attention",))], ids=["premise holds", "premise fails"]
)
def test_dora_goes_where_its_step_is_not_much_longer(
    monkeypatch: pytest.MonkeyPatch, dora_s: float, targets: tuple[str, ...]
) -> None:
    monkeypatch.setitem(FIXED_STEP_S, "dora", dora_s)
    assert searched(job(80), "dora").estimate.recipe.target_modules == targets
    assert searched(job(80), "lora").estimate.recipe.target_modules == ("all-linear",)
    assert searched(job(80, {"target_modules": ("q_proj",)}), "dora").estimate.recipe.target_modules == ("q_proj",)
    assert searched(job(80)._replace(smallest=True), "dora").estimate.recipe.target_modules == ("all-linear",)


def test_smallest_means_least_memory() -> None:
    recipe = best_outcome(job(80)._replace(smallest=True), "lora").estimate.recipe
    assert (recipe.micro_batch, recipe.gradient_checkpointing, recipe.expandable_segments) == (1, True, False)


def test_all_methods_together_need_few_estimates() -> None:
    counter = CountingEstimator()
    advise(MODEL, card(16), 1000, estimator=counter)
    assert len(counter.recipes) <= 110


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
