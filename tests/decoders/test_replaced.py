"""OFT, IA3 and VeRA in LoRA's place, against the traced step."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.parameters.replacing import targets_by_default
from tests.decoders.test_against_trace import check
from tests.decoders.tiny import config, recipe, spec

PURE = {"adapter_dtype": "bfloat16", "autocast": False}
UNPREPARED = {"gradient_checkpointing": False, "kbit_upcast": False}


@pytest.mark.parametrize(
    ("variant", "name", "method", "knobs"),
    [
        ("oft", "llama", "lora", {}),
        ("oft", "llama", "qlora", UNPREPARED),
        ("oft", "qwen2", "lora", {**PURE, "modules_to_save": ("lm_head",)}),
        ("ia3", "llama", "lora", {}),
        ("ia3", "gpt2", "lora", {**PURE, "gradient_checkpointing": False}),
        ("ia3", "qwen2", "qlora", {"autocast": False}),
        ("ia3", "gemma2", "qlora", UNPREPARED),
        ("ia3", "llama", "qlora", {**UNPREPARED, "quant": "int8"}),
        ("ia3", "gptj", "qlora", {"modules_to_save": ("lm_head",)}),
        ("ia3", "mixtral", "lora", {"gradient_checkpointing": False}),
        ("vera", "llama", "lora", {"gradient_checkpointing": False, "dropout": 0.1}),
        ("vera", "qwen2", "qlora", {"autocast": False}),
        ("vera", "falcon-7b", "qlora", UNPREPARED),
        ("vera", "llama", "qlora", {"quant": "int8"}),
        ("vera", "gemma2", "lora", {**PURE, "trained_layers": 1}),
        ("vera", "qwen3_moe-some", "lora", {"target_modules": ("attention",)}),
    ],
)
def test_a_step_equals_its_trace(variant: Any, name: str, method: str, knobs: dict[str, Any]) -> None:
    m = spec(name, 2)
    default = ("q_proj", "v_proj") if variant == "oft" else targets_by_default(m, variant)
    knobs = {"target_modules": default, **knobs}
    check(m, config(name, 2), recipe(m, method, variant=variant, **knobs))
