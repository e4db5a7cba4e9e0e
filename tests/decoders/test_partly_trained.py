"""Weights that are trained beside adapters, and models of which only the last layers are, against the traced step."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.costs.memory import predict_step_memory
from advisor.parameters.paths import named_by
from advisor.specs import METHODS
from calibrate.worker.dryrun import trace_step
from tests.decoders.test_against_trace import EVERY_COMBINATION, SHAPE, check
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


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("llama", r".*\.(q|v)_proj$"), ("gpt2", r".*\.attn\.c_.*"), ("opt", r"model\.decoder\.layers\.\d+\.fc[12]")],
)
def test_a_pattern_adapts_what_peft_finds(name: str, pattern: str) -> None:
    m = spec(name, 2)
    asked = recipe(m, "lora", target_modules=(pattern,))
    trace = trace_step(config(name, 2), asked, *SHAPE, name_modules=False)
    named = asked.model_copy(update={"target_modules": named_by(m, (pattern,))})
    assert predict_step_memory(m, named, *SHAPE, "cpu").peak_bytes == trace.peak_bytes


@pytest.mark.parametrize(
    ("name", "method", "knobs"),
    [("gemma2", "qlora", {"gradient_checkpointing": False}), ("gpt2", "lora", {}), ("llama", "full", {})],
)
def test_noise_on_embedded_tokens(name: str, method: str, knobs: dict[str, Any]) -> None:
    m = spec(name, 2)
    check(m, config(name, 2), recipe(m, method, neftune=5.0, **knobs))
