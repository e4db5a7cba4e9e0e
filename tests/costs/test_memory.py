"""How the parts of a step's peak are put together."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog import find_model
from advisor.costs.memory import StepMemory, gradient_bytes, predict_step_memory
from advisor.specs import METHODS, QUANTIZED_METHODS, Recipe

LLAMA_1B = find_model("llama-3.2-1b")
PARAMETERS = 1_235_814_400


def recipe(method: Any, **knobs: Any) -> Recipe:
    return Recipe(method=method, quant="nf4" if method in QUANTIZED_METHODS else "none", **knobs)


def step(method: Any, batch: int = 1, length: int = 256, **knobs: Any) -> StepMemory:
    return predict_step_memory(LLAMA_1B, recipe(method, **knobs), batch, length)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_peak_is_the_sum_of_its_parts_and_the_highest_phase(method: str, checkpointing: bool) -> None:
    found = step(method, gradient_checkpointing=checkpointing)
    assert found.peak_bytes == sum(found.static_blocks.values()) + sum(found.moving.values())
    assert found.peak_bytes == max(found.phase_peaks.values()) == max(found.part_peaks)
    assert found.after_forward_bytes <= found.phase_peaks["forward"]
    assert min(found.phase_peaks.values()) >= sum(found.static_blocks.values())


def test_gradients_are_in_the_dtype_of_what_is_trained() -> None:
    assert gradient_bytes(LLAMA_1B, recipe("full")) == 2 * PARAMETERS  # every tensor fills whole blocks
    assert gradient_bytes(LLAMA_1B, recipe("lora", adapter_dtype="float32")) == 4 * 11_272_192
    assert gradient_bytes(LLAMA_1B, recipe("lora", adapter_dtype="bfloat16")) == 2 * 11_272_192


def test_a_step_ends_with_its_gradients() -> None:
    found = step("full")
    left = found.after_backward_bytes - sum(found.static_blocks.values())
    assert 2 * PARAMETERS <= left < 2 * PARAMETERS + 2**20


def test_gradients_of_earlier_micro_steps_stand_through_the_forward() -> None:
    once, twice = (step("full", gradient_accumulation=count) for count in (1, 2))
    assert twice.after_forward_bytes - once.after_forward_bytes == 2 * PARAMETERS
    assert twice.after_backward_bytes == once.after_backward_bytes


def test_checkpointing_keeps_one_hidden_state_a_layer() -> None:
    """256 tokens of 2,048 features in 2 bytes, 16 times; what is kept around the layers is the same."""
    deep = LLAMA_1B.model_copy(update={"num_hidden_layers": 20})
    kept = []
    for model in (LLAMA_1B, deep):
        found = predict_step_memory(model, recipe("lora", gradient_checkpointing=True, autocast=False), 1, 256)
        kept.append(found.after_forward_bytes - sum(found.static_blocks.values()))
    assert kept[1] - kept[0] == 4 * 256 * 2048 * 2
