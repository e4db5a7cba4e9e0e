"""The tape's events as the allocator's requests."""

from __future__ import annotations

import pytest

from advisor.costs.memory import predict_step_memory
from advisor.decoders.stack import Stack
from advisor.specs import ModelSpec, Recipe
from advisor.stacks.early_2024 import Early2024
from advisor.validation.replayed import replayed

MODEL = ModelSpec(
    name="small",
    architecture="llama",
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=128,
    vocab_size=8192,
)
ASIDE = 2**20


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stack", [Stack(), Early2024()])
def test_replay_allocates_the_peak_of_the_tape(checkpointing: bool, stack: Stack) -> None:
    recipe = Recipe(method="lora", rank=8, gradient_checkpointing=checkpointing, reentrant=checkpointing)
    step = predict_step_memory(MODEL, recipe, 2, 512, "cuda", stack)
    found = replayed(step, ASIDE, MODEL, recipe, 2, 512, stack)
    # blocks may be a little larger than what was asked for
    assert found.peak_allocated_bytes == pytest.approx(step.peak_bytes + ASIDE, rel=0.02)
    assert found.peak_reserved_bytes >= found.peak_allocated_bytes
