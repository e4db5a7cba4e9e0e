"""Adapters in a vision tower."""

from __future__ import annotations

from advisor.catalog import find_model
from advisor.parameters.tower_targets import tower_adapted
from advisor.specs import ModelSpec
from tests.parameters.test_towers import LORA, seeing


def test_what_is_adapted() -> None:
    m, _ = seeing()
    assert tower_adapted(m, LORA) >= {"qkv", "proj", "gate_proj", "mlp.0", "mlp.2"}
    assert tower_adapted(m, LORA.model_copy(update={"target_modules": ("attention",)})) == frozenset()
    assert tower_adapted(m, LORA.model_copy(update={"target_modules": ("q_proj", "up_proj")})) == {"up_proj"}
    assert tower_adapted(m, LORA.model_copy(update={"train_tower": False})) == frozenset()
    assert tower_adapted(m, LORA.model_copy(update={"trained_layers": 2})) == frozenset()


def test_attention_names_reach_a_tower_that_has_them() -> None:
    m = find_model("llava-1.5-7b")
    assert isinstance(m, ModelSpec)
    attention = LORA.model_copy(update={"target_modules": ("attention",)})
    assert tower_adapted(m, attention) == {"q_proj", "k_proj", "v_proj"}
