"""Which parts of a mixture of experts get adapters, and what a grouped product costs."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.decoders.step import step_program
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears, own_parameters
from advisor.parameters.storage import own_quant
from advisor.parameters.targets import adapter_parameter_count, expert_adapters, spelled_targets
from advisor.parameters.trained import trained_shapes
from advisor.specs import Recipe
from tests.decoders.test_against_trace import check
from tests.decoders.tiny import config, recipe, spec

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def test_the_fused_projection_gets_twice_the_rank_for_every_expert() -> None:
    m = spec("mixtral")
    found = expert_adapters(m, Recipe(method="lora", rank=8), 8)
    assert found["gate_up"] == ((4 * 16, 192), (2 * 104, 4 * 16))
    assert found["down"] == ((4 * 8, 104), (192, 4 * 8))
    assert found["router"] == ((8, 192), (4, 8))
    assert {name: p.shape for name, p in own_parameters(m).items()} == {
        "router": (4, 192),
        "gate_up": (4, 208, 192),
        "down": (4, 192, 104),
    }


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "granitemoe"])
def test_adapter_count_is_that_of_the_trained_tensors(name: str) -> None:
    m = spec(name)
    shapes = trained_shapes(m, Recipe(method="lora", rank=8))
    assert sum(p.elements * p.times for p in shapes) == adapter_parameter_count(m, ("all-linear",), 8, dora=False)


@pytest.mark.parametrize("knobs", [{"method": "dora"}, {"method": "lora", "dropout": 0.1}])
def test_what_peft_refuses_on_experts_is_spelled_without_them(knobs: dict[str, Any]) -> None:
    m, recipe = spec("qwen3_moe"), Recipe(**knobs)
    assert expert_adapters(m, recipe, 8) == {}
    assert spelled_targets(m, recipe) == ATTENTION
    assert spelled_targets(m, Recipe(method="lora")) == ("all-linear",)


def test_peft_does_not_know_granite_experts() -> None:
    m = spec("granitemoe")
    assert expert_adapters(m, Recipe(method="lora"), 8) == {}
    assert tuple(layer_linears(m)) == ATTENTION


@pytest.mark.parametrize(
    ("name", "double_quant", "checkpointing"),
    [("qwen3_moe", True, True), ("gpt_oss", False, True), ("qwen3_next", False, False)],
)
def test_stacks_in_4_bits_are_made_in_16_once_in_a_pass(name: str, double_quant: bool, checkpointing: bool) -> None:
    knobs = {"target_modules": ("q_proj", "v_proj"), "double_quant": double_quant, "quantize_experts": True}
    m = spec(name, 2)
    check(m, config(name, 2), recipe(m, "qlora", gradient_checkpointing=checkpointing, **knobs))


def test_a_convolution_is_no_stack_of_experts() -> None:
    own = own_parameters(next(part for part, _ in layer_groups(spec("qwen3_next", 2)) if part.recurrence is not None))
    chosen = Recipe(method="qlora", quant="nf4", quantize_experts=True)
    stored = {name: own_quant(p, spec("qwen3_next"), chosen) for name, p in own.items() if len(p.shape) == 3}
    assert stored == {"conv": "none", "gate_up": "nf4", "down": "nf4"}


def test_experts_compute_for_the_chosen_alone() -> None:
    few, many = (
        sum(
            copies * times * kernel[2]
            for copies, kernels, *_ in step_program(m, Recipe(method="full"), 2, 64, "cuda").kernels(2, 64, 16)
            for kernel, times in kernels
        )
        for m in (spec("mixtral").model_copy(update={"experts_per_token": k}) for k in (1, 2))
    )
    per_token = 3 * 2 * 3 * 192 * 104  # forward and twice backward, two FLOPs, three projections
    assert many - few >= 3 * 128 * per_token
