"""Tiny models that a real step can be run for, and the command."""

from __future__ import annotations

from typing import Any

import pytest

from tests.calibrate.door import Door

SIZES: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "tie_word_embeddings": False},
    "qwen2": {**SIZES, "tie_word_embeddings": True},
    "gemma2": {**SIZES, "head_dim": 32},
    "phi3": {**SIZES, "pad_token_id": 0},
    "gpt_neox": {key: value for key, value in SIZES.items() if key != "num_key_value_heads"},
    "gpt2": {"vocab_size": 2048, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
}


@pytest.fixture(scope="session")
def tiny() -> dict[str, dict[str, Any]]:
    """Configs by model_type, each with its model_type."""
    return {model_type: {"model_type": model_type, **config} for model_type, config in CONFIGS.items()}


@pytest.fixture
def calibrate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    return Door(monkeypatch, capsys)
