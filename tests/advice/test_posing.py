"""The job that a trainer makes of a question."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.posing import Asked, posed
from advisor.catalog import find_gpus, find_model
from advisor.costs.estimation import estimate
from advisor.errors import BadValue
from advisor.knobs import read_question
from advisor.specs import ModelSpec


def model_of(name: str, **knobs: Any) -> ModelSpec:
    """The model that the job has."""
    asked = Asked(read_question(knobs), find_model(name), find_gpus("80GB"), None, estimate, None)
    found = posed(asked).job.model
    assert isinstance(found, ModelSpec)
    return found


@pytest.mark.parametrize(
    ("knobs", "experts"),
    [
        ({}, "fused"),
        ({"trainer": "llamafactory"}, "fused_alone"),  # it pins peft 0.18, which leaves them out of 'all-linear'
        ({"trainer": "llamafactory", "stack": "peft-0.21"}, "fused"),
        ({"trainer": "llamafactory", "stack": "transformers-4.57"}, "linears"),
        ({"trainer": "ms-swift"}, "fused"),
    ],
)
def test_the_model_is_the_one_that_the_trainer_s_libraries_build(knobs: dict[str, Any], experts: str) -> None:
    assert model_of("qwen3-30b-a3b", **knobs).experts == experts


@pytest.mark.parametrize(
    ("model", "knobs", "padding"),
    [
        ("llama-3.1-8b", {}, "none"),
        ("llama-3.1-8b", {"loss": "full"}, "longest"),  # UNSLOTH_RETURN_LOGITS=1
        ("llama-3.1-8b", {"loss": "chunked"}, "none"),
        ("gemma-2-9b", {}, "longest"),
        ("gpt-oss-20b", {}, "longest"),
        ("gemma-2-9b", {"padding": "max_length"}, "max_length"),
    ],
)
def test_unsloth_pads_where_it_cannot_keep_rows_apart(model: str, knobs: dict[str, Any], padding: str) -> None:
    asked = read_question({"trainer": "unsloth", **knobs})
    job = posed(Asked(asked, find_model(model), find_gpus("80GB"), None, estimate, None)).job
    assert job.workload.padding == padding


@pytest.mark.parametrize(
    ("model", "targets", "why"),
    [
        ("qwen3-8b", "q_proj", "qwen3-8b has no stacks of experts"),
        ("llama-4-scout", "q_proj", "llama4_text does with stacks"),
        ("qwen3-30b-a3b", "all-linear", "adapters on stacks of experts in 4 bits is not known; name --target-modules"),
    ],
)
def test_stacks_of_experts_in_4_bits_are_for_what_has_them(model: str, targets: str, why: str) -> None:
    knobs = {"method": "qlora", "trainer": "axolotl", "quantize_experts": True, "target_modules": (targets,)}
    with pytest.raises(BadValue, match=why):
        model_of(model, **knobs)
    assert model_of("qwen3-30b-a3b", **{**knobs, "target_modules": ("q_proj", "v_proj")}).num_experts == 128
