"""Weights that are trained beside adapters, and models of which only the last layers are, against the traced step."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.specs import METHODS
from tests.decoders.test_against_trace import EVERY_COMBINATION, check
from tests.decoders.tiny import config, recipe, spec

SAVED = {"llama": ("embed_tokens", "lm_head"), "gemma2": ("embed_tokens", "lm_head"), "gpt2": ("wte", "lm_head")}
"""An untied head, a tied one whose embedding has a buffer, and learned positions."""
CASES = [
    (name, method, checkpointing)
    for index, (name, method, checkpointing) in enumerate(
        itertools.product(SAVED, (m for m in METHODS if m != "full"), (False, True))
    )
    if EVERY_COMBINATION or index % 7 == 1
]


@pytest.mark.parametrize(("name", "method", "checkpointing"), CASES)
def test_modules_beside_adapters(name: str, method: str, checkpointing: bool) -> None:
    m = spec(name, 2)
    knobs = {"modules_to_save": SAVED[name], "gradient_checkpointing": checkpointing}
    check(m, config(name, 2), recipe(m, method, **knobs))


@pytest.mark.parametrize(
    ("name", "layers", "method", "knobs"),
    [
        ("llama", 2, "lora", {"modules_to_save": ("embed_tokens", "norm"), "autocast": False}),
        ("olmo-tied", 2, "dora", {"modules_to_save": ("lm_head",)}),
        ("phimoe-jitter", 2, "qdora", {"modules_to_save": ("lm_head",), "kbit_upcast": False}),
        ("qwen3", 2, "lora", {"modules_to_save": ("lm_head",), "trained_dtype": "float32", "gradient_accumulation": 4}),
        ("llama", 2, "lora", {"modules_to_save": ("lm_head",), "target_modules": ("q_proj", "lm_head")}),
        ("llama", 5, "lora", {"trained_layers": 2, "gradient_checkpointing": False}),
        ("gpt2", 4, "qlora", {"trained_layers": 2}),
        ("gemma2", 4, "full", {"trained_layers": 1, "gradient_checkpointing": False, "gradient_accumulation": 4}),
        (
            "stablelm-normed",
            4,
            "full",
            {"trained_layers": 2, "modules_to_save": ("lm_head",), "trained_dtype": "float32"},
        ),
        ("qwen3_moe-some", 4, "full", {"trained_layers": 3, "reentrant": True}),
    ],
)
def test_parts_of_a_model(name: str, layers: int, method: str, knobs: dict[str, Any]) -> None:
    m = spec(name, layers)
    check(m, config(name, layers), recipe(m, method, **knobs))
