"""axolotl's LoRA functions: what they save, and what is said where they do not run."""

from __future__ import annotations

from typing import Any

import pytest

from tests.decoders.tiny import spec
from tests.stacks.steps import kept, recipe_of, stack_of, step


@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "qdora"])
def test_fused_lora_keeps_less(method: Any) -> None:
    for name in ("llama", "qwen3", "gemma2", "olmo2", "llama4"):
        m, knobs = spec(name), {"target_modules": ("all-linear",)}
        assert kept(m, recipe_of(method, "fused_lora", **knobs)) < kept(m, recipe_of(method, **knobs)), name


@pytest.mark.parametrize(
    ("name", "knobs", "why"),
    [
        ("llama", {"method": "full"}, "for adapters"),
        ("llama", {"method": "qlora", "quant": "int8"}, "8 bits"),
        ("llama", {"method": "lora", "base_dtype": "float32"}, "16 or 4 bits"),
        ("llama", {"method": "lora", "target_modules": ("q_proj", "v_proj")}, "all of q, k and v"),
        ("phi3", {"method": "lora"}, "as layers of their own"),
    ],
)
def test_fused_lora_says_why_it_does_not_run(name: str, knobs: dict[str, Any], why: str) -> None:
    m, method = spec(name), knobs.pop("method")
    recipe, plain = recipe_of(method, "fused_lora", **knobs), recipe_of(method, **knobs)
    (said,) = stack_of(recipe).declined(m, recipe)
    assert why in said
    assert step(m, recipe) == step(m, plain)
