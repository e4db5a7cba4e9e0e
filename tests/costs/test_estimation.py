"""Memory, time and evidence of one recipe on one card."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog import find_gpus, find_model
from advisor.costs.estimation import estimate, estimate_time
from advisor.errors import UnknownName
from advisor.interval import Interval
from advisor.specs import KNOWN, METHODS, QUANTIZED_METHODS, Estimate, GpuSpec, Placement, Recipe, Workload

LLAMA_1B = find_model("llama-3.2-1b")
RTX_4090 = find_gpus("rtx4090")[0]
JOB = Workload(examples=1000, seq_len=512)


def estimated(method: Any, gpu: GpuSpec = RTX_4090, placement: Placement | None = None, **knobs: Any) -> Estimate:
    quant = "nf4" if method in QUANTIZED_METHODS else "none"
    return estimate(LLAMA_1B, Recipe(**{"method": method, "quant": quant, **knobs}), JOB, gpu, placement)


@pytest.mark.parametrize("method", METHODS)
def test_the_terms_add_up_to_what_is_needed(method: str) -> None:
    memory = estimated(method).memory
    assert sum(term.bytes for term in memory.terms) == round(memory.needed_bytes.likely)
    assert memory.peak_allocated_bytes.likely <= memory.peak_reserved_bytes.likely <= memory.device_bytes.likely
    assert memory.needed_bytes.likely <= memory.device_bytes.likely


def test_trained_parameters_are_those_of_the_method() -> None:
    assert estimated("full").trainable_parameters == 1_235_814_400
    assert estimated("lora", rank=16).trainable_parameters == 11_272_192
    magnitudes = 16 * (2 * 2048 + 2 * 512 + 2 * 8192 + 2048)
    assert estimated("dora", rank=16).trainable_parameters == 11_272_192 + magnitudes


def test_a_card_of_unknown_speed_has_memory_and_no_time() -> None:
    (bare,) = find_gpus("7GB")
    found = estimated("lora", bare)
    assert found.time is None
    assert found.memory.needed_bytes.likely > 2 * 1_235_814_400


def test_one_card_is_what_is_meant_where_no_placement_is_given() -> None:
    assert estimated("lora") == estimated("lora", placement=Placement())


def test_what_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownName, match="qproj"):
        estimated("lora", target_modules=("qproj",))


UNCERTAIN = JOB.model_copy(
    update={"mean_seq_len": 300, "seq_len_factor": Interval(0.5, 1, 2), "mean_seq_len_factor": Interval(0.8, 1, 1.25)}
)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_uncertain_lengths_reach_every_interval(micro_batch: int, packing: bool) -> None:
    job = UNCERTAIN.model_copy(update={"packing": packing})
    recipe = Recipe(method="lora", micro_batch=micro_batch)
    known = job.model_copy(update={"seq_len_factor": KNOWN, "mean_seq_len_factor": KNOWN})
    short = known.model_copy(update={"seq_len": 256, "mean_seq_len": 240})
    long = known.model_copy(update={"seq_len": 1024, "mean_seq_len": 375})
    found = estimate(LLAMA_1B, recipe, job, RTX_4090)
    low, likely, high = (estimate(LLAMA_1B, recipe, one, RTX_4090) for one in (short, known, long))
    for name in ("peak_allocated_bytes", "peak_reserved_bytes", "needed_bytes", "device_bytes"):
        ends = getattr(low.memory, name).low, getattr(likely.memory, name).likely, getattr(high.memory, name).high
        assert getattr(found.memory, name) == ends
    assert low.memory.needed_bytes.low < likely.memory.needed_bytes.low
    assert found.time is not None
    assert likely.time is not None
    totals = [one.time.total_s for one in (low, likely, high) if one.time is not None]
    assert len(totals) == 3
    assert found.time.total_s.low == min(total.low for total in totals)
    assert found.time.total_s.high == max(total.high for total in totals)
    if micro_batch > 1:  # else the host's launches bind, whatever the length
        assert found.time.total_s.low < likely.time.total_s.low < likely.time.total_s.high < found.time.total_s.high
    assert found.time.total_s.likely == likely.time.total_s.likely
    assert found.time.steps == likely.time.steps
    assert found.memory.terms == likely.memory.terms


def test_a_card_of_unknown_speed_has_no_time_whatever_the_lengths() -> None:
    (bare,) = find_gpus("7GB")
    assert estimate(LLAMA_1B, Recipe(method="lora"), UNCERTAIN, bare).time is None
    assert estimate_time(LLAMA_1B, Recipe(method="lora"), UNCERTAIN, bare, Placement()) is None


@pytest.mark.parametrize("job", [JOB, UNCERTAIN], ids=["known lengths", "uncertain lengths"])
@pytest.mark.parametrize("knobs", [{}, {"expandable_segments": True}, {"eval_batch": 4}], ids=str)
def test_the_time_alone_is_that_of_the_estimate(job: Workload, knobs: dict[str, Any]) -> None:
    job = job.model_copy(update={"eval_examples": 100})
    recipe = Recipe(method="dora", micro_batch=4, **knobs)
    time = estimate_time(LLAMA_1B, recipe, job, RTX_4090, Placement())
    assert time == estimate(LLAMA_1B, recipe, job, RTX_4090).time
    assert time is not None
    assert (time.evaluation_s is not None) == bool(recipe.eval_batch)


@pytest.mark.parametrize("names", [("transformers-4.57",), ("litgpt-0.5",)], ids=str)
def test_the_time_alone_is_of_the_model_that_the_recipes_libraries_build(names: tuple[str, ...]) -> None:
    model, recipe = find_model("qwen1.5-moe-a2.7b"), Recipe(method="qlora", quant="nf4", stack=names)
    time = estimate_time(model, recipe, JOB, RTX_4090, Placement())
    assert time == estimate(model, recipe, JOB, RTX_4090).time
    assert time != estimate_time(model, recipe.model_copy(update={"stack": ()}), JOB, RTX_4090, Placement())


def test_the_time_alone_is_refused_as_the_estimate_is() -> None:
    with pytest.raises(UnknownName, match="qproj"):
        estimate_time(LLAMA_1B, Recipe(method="lora", target_modules=("qproj",)), JOB, RTX_4090, Placement())


def test_known_lengths_change_nothing() -> None:
    exact = JOB.model_copy(update={"seq_len_factor": KNOWN, "mean_seq_len_factor": KNOWN})
    assert exact == JOB
    assert JOB.ends is None


def test_lengths_in_random_order_reserve_at_most_the_card() -> None:
    shuffled, alike = (
        estimate(LLAMA_1B, Recipe(method="lora", micro_batch=4), Workload(seq_len=2048, mean_seq_len=mean), RTX_4090)
        for mean in (600, 2048)
    )
    memory = shuffled.memory
    assert memory.device_bytes.high == max(RTX_4090.memory_bytes, memory.needed_bytes.high)
    assert memory.device_bytes.low <= memory.device_bytes.likely <= memory.device_bytes.high
    assert memory.peak_reserved_bytes.low > 1.05 * alike.memory.peak_allocated_bytes.low
    assert sum(term.bytes for term in memory.terms) == round(memory.needed_bytes.likely)


def test_uncertain_lengths_widen_every_moment() -> None:
    recipe = Recipe(method="lora", micro_batch=4, eval_batch=8)
    known = JOB.model_copy(update={"mean_seq_len": 300})
    likely, found = (estimate(LLAMA_1B, recipe, workload, RTX_4090).memory for workload in (known, UNCERTAIN))
    assert [one.name for one in found.moments] == ["step", "evaluation"]
    for before, after in zip(likely.moments, found.moments, strict=True):
        assert after.needed_bytes.low < before.needed_bytes.low
        assert after.needed_bytes.likely == before.needed_bytes.likely
        assert after.needed_bytes.high > before.needed_bytes.high
    assert max(one.needed_bytes.high for one in found.moments) == found.needed_bytes.high


def test_a_base_in_four_bits_that_is_spread_may_be_loaded_whole_on_each_card() -> None:
    copied, spread = (
        estimated("qlora", placement=Placement(gpus=8, sharding=sharding), kbit_upcast=False).memory
        for sharding in ("ddp", "fsdp2")
    )
    loaded = next(one for one in copied.moments if one.name == "loading").needed_bytes
    assert spread.device_bytes.high >= loaded.high
    assert spread.needed_bytes.high < copied.needed_bytes.high
