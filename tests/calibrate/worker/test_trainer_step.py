"""The presets against the trainers themselves: transformers' Trainer and trl's SFTTrainer run their own loop."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from advisor.errors import BadValue
from advisor.specs import METHODS, Method
from calibrate.worker.dryrun import trace_step
from calibrate.worker.trainer_step import BATCH, CONFIG, SEQ_LEN, predicted_step, preset_recipe, traced_step
from tests.decoders.tiny import config

PEAK_TOLERANCE = 1e-4
PHASE_TOLERANCE = 1e-3
SLACK_BYTES = 16 * BATCH * SEQ_LEN + 8 * 512
"""The trainers' batch has an attention mask and labels of its own, 16 bytes a token, and there are a few numbers."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def near(size_bytes: int, relative: float) -> Any:
    return pytest.approx(size_bytes, rel=relative, abs=SLACK_BYTES)


def check(trainer: str, method: Method, traced: dict[str, Any] | None = None, **knobs: Any) -> None:
    recipe = preset_recipe(trainer, method, knobs)
    shapes = {} if traced is None else {"config": traced}
    real, predicted = traced_step(trainer, recipe, **shapes), predicted_step(recipe, **shapes)
    dry = trace_step(shapes.get("config", CONFIG), recipe, BATCH, SEQ_LEN)
    assert dry.peak_bytes == near(real.peak, PEAK_TOLERANCE)
    assert real.trained_dtypes == predicted.trained_dtypes
    assert real.static == predicted.static
    assert predicted.after_forward == near(real.after_forward, PHASE_TOLERANCE)
    assert predicted.peak == near(real.peak, PEAK_TOLERANCE)
    for phase in ("forward", "backward", "optimizer"):
        assert predicted.phase_peaks[phase] == near(real.phase_peaks[phase], PHASE_TOLERANCE), phase


@pytest.mark.parametrize("method", METHODS)
def test_transformers(method: Method) -> None:
    check("transformers", method)


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("dora", {"gradient_checkpointing": False, "autocast": False}),
        ("qlora", {"gradient_checkpointing": False, "adapter_dtype": "bfloat16"}),
        ("lora", {"reentrant": True, "dropout": 0.1}),
    ],
)
def test_transformers_with_other_knobs(method: Method, knobs: dict[str, Any]) -> None:
    check("transformers", method, **knobs)


@pytest.mark.parametrize("method", METHODS)
def test_trl(method: Method) -> None:
    pytest.importorskip("trl")
    check("trl", method)


@pytest.mark.parametrize(
    ("method", "name", "knobs"),
    [
        ("qdora", "llama", {"base_dtype": "bfloat16", "gradient_checkpointing": False, "dropout": 0.0}),
        ("qlora", "llama", {"base_dtype": "bfloat16", "double_quant": True}),
        ("full", "phi", {"gradient_checkpointing": False}),
        ("lora", "gemma2", {"base_dtype": "bfloat16", "gradient_checkpointing": False}),
        ("full", "olmo-tied", {"base_dtype": "bfloat16"}),
        ("lora", "qwen3_moe", {"dropout": 0.0}),
    ],
)
def test_trl_with_other_models_and_knobs(method: Method, name: str, knobs: dict[str, Any]) -> None:
    """A head with a bias, soft caps on the logits (eager attention), tied embeddings, a mixture that it balances."""
    pytest.importorskip("trl")
    eager = {"attention": "eager"} if name == "gemma2" else {}
    check("trl", method, config(name, 2), **knobs, **eager)


def test_trls_loss_holds_two_parts_of_a_large_head() -> None:
    """Three tiles of logits: while one part of the head is cast, the name still holds the part before."""
    pytest.importorskip("trl")
    check("trl", "qlora", CONFIG | {"vocab_size": 70_000, "num_hidden_layers": 1})


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(BadValue, match="must be transformers or trl"):
        traced_step("unsloth", preset_recipe("unsloth", "lora"))
    with pytest.raises(BadValue, match="must be chunked for trl"):
        traced_step("trl", preset_recipe("trl", "lora", {"loss": "full"}))
