"""What a rank of DeepSpeed's ZeRO stages holds, beside recorded runs of the real engine, and by the formula alone.

The runs: DeepSpeed 0.19.8, PyTorch 2.13, transformers 5.23, peft 0.21.2; `benchmarks.against_deepspeed llama` with two
rows of 49 tokens and a bucket of 60,000 elements; the most of all ranks.
"""

from __future__ import annotations

import pytest

from advisor import find_model
from advisor.costs.rank_memory import predict_rank_memory
from advisor.decoders.stack import THIS_STACK
from advisor.engines import engine_for
from advisor.engines.zero import Group
from advisor.errors import InputError
from advisor.specs import Method, Placement, Recipe, Sharding
from advisor.terms import TermName
from tests.decoders.tiny import recipe as tiny_recipe
from tests.decoders.tiny import spec

MODEL = find_model("llama-3.1-8b")
STAGES: tuple[Sharding, ...] = ("zero1", "zero2", "zero3")
TWICE = {"gradient_accumulation": 2, "gradient_checkpointing": True}

# method, stage, ranks, knobs; then standing bytes, and the most above them forward, backward, in the optimizer's step
RUNS: tuple[tuple[Method, Sharding, int, dict[str, object], int, int, int, int], ...] = (
    ("full", "zero1", 2, {}, 15_848_960, 1_324_032, 6_065_152, 9_898_496),
    ("full", "zero1", 3, {}, 11_887_616, 1_324_032, 5_465_088, 6_748_672),
    ("full", "zero1", 2, TWICE, 15_848_960, 5_406_720, 6_065_152, 9_898_496),
    ("full", "zero2", 2, {}, 15_848_960, 1_324_032, 3_564_032, 9_898_496),
    ("full", "zero2", 8, {}, 6_937_088, 1_324_032, 2_213_888, 2_679_808),
    ("full", "zero3", 2, {}, 15_974_912, 5_281_792, 5_478_400, 7_918_592),
    ("full", "zero3", 8, {}, 4_092_416, 5_281_792, 5_478_400, 1_982_464),
    ("full", "zero3", 2, TWICE, 15_974_912, 5_281_792, 5_478_400, 7_918_592),
    ("lora", "zero1", 2, {}, 5_716_480, 1_300_480, 1_534_464, 876_544),
    ("lora", "zero1", 2, TWICE, 5_716_480, 1_861_120, 2_019_840, 876_544),
    ("lora", "zero2", 2, {}, 5_716_480, 1_300_480, 1_492_992, 876_544),
    ("lora", "zero3", 2, {}, 3_879_936, 5_682_176, 5_878_784, 877_056),
    ("lora", "zero3", 8, {}, 1_086_464, 5_682_176, 5_878_784, 221_696),
    ("dora", "zero2", 2, {}, 5_773_824, 1_300_480, 3_155_456, 905_216),
    ("qlora", "zero3", 2, {}, 2_799_104, 3_298_304, 3_494_912, 877_056),
)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: " ".join(map(str, run[:3])))
def test_recorded_runs(run: tuple[Method, Sharding, int, dict[str, object], int, int, int, int]) -> None:
    method, stage, ranks, knobs, static, *peaks = run
    m = spec("llama", 4)
    dtypes = {"base_dtype": "bfloat16", "adapter_dtype": "float32"}
    recipe = tiny_recipe(m, method, autocast=True, optimizer="adamw_foreach", **dtypes, **knobs)
    placement = Placement(gpus=ranks, sharding=stage, bucket_elements=60_000)
    found = predict_rank_memory(m, recipe, placement, 2, 49, device="cpu")
    assert sum(found.static_blocks.values()) == pytest.approx(static, abs=6_000), "but for counters and scalars"
    for phase, peak in zip(("forward", "backward", "optimizer"), peaks, strict=True):
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
    assert any("most that it allows" in text for text in engine.unknown())
    found = predict_rank_memory(MODEL, recipe_of("full"), Placement(gpus=64, sharding="zero3"), 1, 512)
    largest = 128_256 * 4096
    assert 2e9 < found.moving[TermName.GATHERED] < 2 * (1e9 + largest + 0.9 * 4096**2) + 1e6


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


def test_offload_is_refused() -> None:
    with pytest.raises(InputError, match="not counted yet"):
        Placement(gpus=8, sharding="zero3", offload="parameters")
