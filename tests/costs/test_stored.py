"""What an estimate of a stored base stands on, and how far it is known."""

from __future__ import annotations

import pytest

from advisor.catalog import find_gpus, find_model
from advisor.costs.estimation import estimate
from advisor.recipes import build_recipe
from advisor.specs import Estimate, Recipe, Workload

CARD = find_gpus("rtx4090")[0]
PLAIN = find_model("qwen3-8b")
DYNAMIC = find_model("unsloth/Qwen3-8B-unsloth-bnb-4bit")


def of(recipe: Recipe, dynamic: bool = False) -> Estimate:
    return estimate(DYNAMIC if dynamic else PLAIN, recipe, Workload(), CARD)


def test_what_was_read_is_said_with_the_package() -> None:
    for quant, package in (
        ("gptq", "gptqmodel 7.7"),
        ("awq", "gptqmodel 7.7"),
        ("hqq", "hqq 0.2.8"),
        ("fp8", "FP8Linear"),
    ):
        found = of(build_recipe("qlora", {"quant": quant})).evidence
        assert package in found.memory
        assert found.unknown == ()
    assert "gptqmodel" not in of(build_recipe("qlora", {})).evidence.memory


@pytest.mark.parametrize("upcast", [False, True])
def test_unknown_layers_raise_the_high_end_alone(upcast: bool) -> None:
    recipe = build_recipe("qlora", {"kbit_upcast": upcast})
    known, found = of(recipe), of(recipe, dynamic=True)
    assert found.evidence.unknown
    for name in ("needed_bytes", "peak_allocated_bytes", "device_bytes", "peak_reserved_bytes"):
        one, other = getattr(known.memory, name), getattr(found.memory, name)
        assert other.likely == one.likely
        assert other.high > one.high
    # 33 % of embedding and head in 16 bits and layers in 4; left in fp32 they take more than twice as much
    embeddings, layers = 2 * 151_936 * 4096 * 2, 36 * 192_937_984 * 0.516
    extra = found.memory.needed_bytes.high - known.memory.needed_bytes.high
    factor = (4 - 0.516) / (2 - 0.516) if upcast else 1
    assert extra == pytest.approx((1.81 / 1.36 - 1) * (embeddings + layers) * factor, rel=0.01)


def test_lora_on_the_original_does_not_ask_about_the_store() -> None:
    recipe = build_recipe("lora", {})
    assert of(recipe, dynamic=True).memory == of(recipe).memory
