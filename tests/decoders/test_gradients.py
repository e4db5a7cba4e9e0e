"""An optimizer in backward: one gradient at a time."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.costs.memory import gradient_bytes, predict_step_memory
from advisor.errors import InputError
from advisor.recipes import build_recipe
from tests.decoders.tiny import spec


def test_gradients_never_stand_together() -> None:
    m = spec("llama", 8)

    def step(**knobs: Any) -> Any:
        recipe = build_recipe("full", {"gradient_checkpointing": True, "base_dtype": "bfloat16", **knobs})
        return recipe, predict_step_memory(m, recipe, 1, 16, "cuda")

    recipe, plain = step()
    _, one = step(optimizer_in_backward=True)
    assert plain.after_backward_bytes - one.after_backward_bytes == gradient_bytes(m, recipe)
    assert one.peak_bytes < plain.peak_bytes
    _, adafactor = step(optimizer_in_backward=True, optimizer="adafactor")
    _, sgd = step(optimizer_in_backward=True, optimizer="sgd")
    moving = sum(adafactor.moving.values()) - sum(sgd.moving.values())
    assert moving > 0, "its temporaries are part of backward"


def test_nothing_accumulates() -> None:
    with pytest.raises(InputError, match="allows no accumulation"):
        build_recipe("full", {"optimizer_in_backward": True, "gradient_accumulation": 2})
