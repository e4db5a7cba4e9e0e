"""What a rank of DeepSpeed's ZeRO stages holds, beside recorded runs of the real engine, and by the formula alone.

The runs: DeepSpeed 0.19.8, PyTorch 2.13, transformers 5.23, peft 0.21.2; `benchmarks.against_deepspeed llama` with two
rows of 49 tokens and a bucket of 60,000 elements; the most of all ranks, without what a CPU alone allocates.
"""

from __future__ import annotations

import pytest

from advisor import find_model
from advisor.costs.rank_memory import predict_rank_memory
from advisor.decoders.stack import THIS_STACK
from advisor.engines import engine_for
from advisor.engines.zero import Group
from advisor.errors import InputError
from advisor.specs import Method, Placement, Recipe, Sharding, StateOffload
from advisor.terms import TermName
from tests.decoders.tiny import recipe as tiny_recipe
from tests.decoders.tiny import spec

MODEL = find_model("llama-3.1-8b")
STAGES: tuple[Sharding, ...] = ("zero1", "zero2", "zero3")
TWICE = {"gradient_accumulation": 2, "gradient_checkpointing": True}

# method, stage, ranks, knobs; then standing bytes, and the most above them forward, backward, in the optimizer's step
RUNS: tuple[tuple[Method, Sharding, int, dict[str, object], int, int, int, int], ...] = (
    ("full", "zero1", 2, {}, 15_848_960, 1_303_552, 6_065_152, 9_897_984),
    ("full", "zero1", 3, {}, 11_887_616, 1_324_032, 5_465_088, 6_748_672),
    ("full", "zero1", 2, TWICE, 15_848_960, 5_386_240, 6_065_152, 9_897_984),
    ("full", "zero2", 2, {}, 15_848_960, 1_303_552, 3_521_536, 9_897_984),
    ("full", "zero2", 8, {}, 6_937_088, 1_324_032, 2_213_888, 2_679_808),
    ("full", "zero3", 2, {}, 15_974_912, 5_261_312, 5_457_920, 7_916_032),
    ("full", "zero3", 3, {"gradient_checkpointing": False}, 10_692_608, 8_375_808, 8_572_416, 5_277_184),
    ("full", "zero3", 8, {}, 4_092_416, 5_261_312, 5_457_920, 1_979_904),
    ("full", "zero3", 2, TWICE, 15_974_912, 5_261_312, 5_457_920, 7_916_032),
    ("lora", "zero1", 2, {}, 5_714_432, 1_265_664, 1_526_272, 876_032),
    ("lora", "zero1", 2, TWICE, 5_714_432, 1_826_304, 1_985_024, 876_032),
    ("lora", "zero2", 2, {}, 5_714_432, 1_265_664, 1_467_392, 876_032),
    ("lora", "zero3", 2, {}, 3_877_888, 5_647_360, 5_843_968, 875_008),
    ("lora", "zero3", 8, {}, 1_084_416, 5_647_360, 5_843_968, 219_648),
    ("dora", "zero2", 2, {}, 5_771_776, 1_265_664, 3_130_368, 904_704),
    ("dora", "zero3", 2, {}, 3_957_760, 5_908_480, 6_854_144, 903_680),
    ("dora", "zero3", 8, {}, 1_121_792, 5_908_480, 6_854_144, 226_816),
    ("qlora", "zero2", 2, {}, 3_439_104, 1_265_664, 1_564_672, 876_032),
    ("qlora", "zero3", 2, {"gradient_accumulation": 2}, 2_794_496, 3_263_488, 3_460_096, 875_008),
    ("qdora", "zero2", 2, {}, 3_496_448, 1_265_664, 3_330_048, 904_704),
)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: " ".join(map(str, run[:3])))
def test_recorded_runs(run: tuple[Method, Sharding, int, dict[str, object], int, int, int, int]) -> None:
    method, stage, ranks, knobs, static, *peaks = run
    m = spec("llama", 4)
    dtypes = {"base_dtype": "bfloat16", "adapter_dtype": "float32"}
    recipe = tiny_recipe(m, method, autocast=True, optimizer="adamw_foreach", **dtypes, **knobs)
    placement = Placement(gpus=ranks, sharding=stage, bucket_elements=60_000, configs="llamafactory")
    found = predict_rank_memory(m, recipe, placement, 2, 49, device="cpu")
    assert sum(found.static_blocks.values()) == pytest.approx(static, abs=512), "but for a scalar"
    for phase, peak in zip(("forward", "backward", "optimizer"), peaks, strict=True):
        if stage == "zero3" and phase != "optimizer":
            assert 1.0 <= found.phase_peaks[phase] / (static + peak) < 1.1, "the most that may be gathered"
        else:
            assert found.phase_peaks[phase] == pytest.approx(static + peak, rel=0.01), phase


def recipe_of(method: Method, **changes: object) -> Recipe:
    return Recipe.model_validate({"method": method, "autocast": True, **changes})


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_more_cards_never_hold_more(method: Method, stage: Sharding) -> None:
    found = [
        sum(predict_rank_memory(MODEL, recipe_of(method), Placement(gpus=n, sharding=stage), 1, 512).static.values())
        for n in range(2, 17)
    ]
    assert found == sorted(found, reverse=True)


def test_a_bucket_is_whole_however_little_is_trained() -> None:
    found = predict_rank_memory(MODEL, recipe_of("lora"), Placement(gpus=8, sharding="zero2"), 1, 512)
    assert found.moving[TermName.REDUCTION] >= 2 * 500_000_000
    small = Placement(gpus=8, sharding="zero2", bucket_elements=400_000_000)
    fewer = predict_rank_memory(MODEL, recipe_of("lora"), small, 1, 512)
    assert found.peak_bytes - fewer.peak_bytes == pytest.approx(2 * 100_000_000, rel=1e-3)


def test_what_zero3_gathers_is_bounded_and_said_so() -> None:
    engine = engine_for(MODEL, recipe_of("full"), Placement(gpus=64, sharding="zero3"), THIS_STACK)
    assert engine is not None
    assert engine.gathers_at_most
    found = predict_rank_memory(MODEL, recipe_of("full"), Placement(gpus=64, sharding="zero3"), 1, 512)
    largest = 128_256 * 4096
    assert 2e9 < found.moving[TermName.GATHERED] < 2 * (1e9 + 2 * largest + 5e7) + 1e6


@pytest.mark.parametrize("ranks", [2, 3, 5, 8, 16])
def test_a_part_touches_whole_parameters(ranks: int) -> None:
    elements = (100, 7, 50, 50, 300, 3)
    part = 2 * -(-sum(elements) // (2 * ranks))
    touching = Group(elements, part).touching()
    assert part - 2 * ranks <= touching <= part + 2 * max(elements)


def test_the_second_stage_exchanges_three_times_and_in_every_micro_batch() -> None:
    recipe = recipe_of("full", gradient_accumulation=4)
    first, second = (
        engine_for(MODEL, recipe, Placement(gpus=8, sharding=stage), THIS_STACK) for stage in ("zero1", "zero2")
    )
    assert first is not None
    assert second is not None
    assert [first.syncs(index) for index in range(4)] == [False, False, False, True]
    assert all(second.syncs(index) for index in range(4))
    assert sum(one.bytes for one in second.closing()) == pytest.approx(2 * 8.03e9, rel=1e-3)
    assert {one.kind for one in second.transfers(0, "backward", True)} == {"reduce"}


@pytest.mark.parametrize("stage", STAGES)
def test_an_optimizer_on_the_host_leaves_the_card(stage: Sharding) -> None:
    here = predict_rank_memory(MODEL, recipe_of("full"), Placement(gpus=8, sharding=stage), 1, 512)
    there = predict_rank_memory(
        MODEL, recipe_of("full"), Placement(gpus=8, sharding=stage, offload="optimizer"), 1, 512
    )
    part = 8_030_261_248 // 8
    moved = here.static[TermName.OPTIMIZER_STATES] - there.static[TermName.OPTIMIZER_STATES]
    assert moved == pytest.approx(12 * part, rel=1e-3)
    assert there.phase_peaks["optimizer"] <= here.phase_peaks["optimizer"] - moved
    largest = 0 if stage == "zero3" else 2 * 128_256 * 4096
    assert there.host_bytes == pytest.approx((8 + 4 + 4 + 2) * part + largest, rel=1e-3), "moments, copies, gradients"


def test_parameters_on_the_host_leave_the_card() -> None:
    at = Placement(gpus=8, sharding="zero3", offload="optimizer")
    some, all_ = (
        predict_rank_memory(MODEL, recipe_of("full"), one, 1, 512)
        for one in (at, at.model_copy(update={"offload": "parameters"}))
    )
    part = 2 * 8_030_261_248 // 8
    assert some.static[TermName.BASE_WEIGHTS] - all_.static[TermName.BASE_WEIGHTS] == pytest.approx(part, rel=1e-3)
    assert all_.host_bytes - some.host_bytes == pytest.approx(part, rel=1e-3)


@pytest.mark.parametrize(("stage", "offload"), [("zero2", "parameters"), ("fsdp2", "optimizer")])
def test_what_an_engine_cannot_offload_is_refused(stage: Sharding, offload: StateOffload) -> None:
    with pytest.raises(InputError, match="use zero"):
        Placement(gpus=8, sharding=stage, offload=offload)


def test_a_trainer_has_its_own_sizes() -> None:
    auto = 4096**2
    for trainer, second, third in (
        ("", 500_000_000, 500_000_000),
        ("axolotl", 500_000_000, auto),
        ("llamafactory", 500_000_000, auto),
        ("ms-swift", 200_000_000, auto),
    ):
        at = Placement.model_validate({"gpus": 8, "sharding": "zero2", "configs": trainer})
        engines = [
            engine_for(MODEL, recipe_of("lora"), one, THIS_STACK)
            for one in (at, at.model_copy(update={"sharding": "zero3"}))
        ]
        assert [one.bucket_elements for one in engines] == [second, third]  # type: ignore[union-attr]
    twice, once = (
        predict_rank_memory(MODEL, recipe_of("lora"), Placement(gpus=8, sharding="zero2", configs=one), 1, 512)
        for one in ("axolotl", "")
    )
    assert twice.moving[TermName.REDUCTION] >= once.moving[TermName.REDUCTION] + 10**9 - 10**8
    kept, released = (
        predict_rank_memory(MODEL, recipe_of("lora"), Placement(gpus=8, sharding="zero3", configs=one), 1, 512)
        for one in ("llamafactory", "axolotl")
    )
    assert released.moving[TermName.GATHERED] <= 2 * 2 * 128_256 * 4096 + 10**6 < kept.moving[TermName.GATHERED]
