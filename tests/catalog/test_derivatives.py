"""Derivatives: taken as their base, and said; asked back where the name speaks of another size or kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor import advise
from advisor.catalog import find_model
from advisor.catalog.derivatives import UNLIKE_ITS_BASE, derivative
from advisor.errors import AmbiguousName


@pytest.mark.parametrize(
    ("typed", "base", "storage"),
    [
        ("acme/my-llama-3-8b-tuned", "llama-3-8b", ""),
        ("acme/Foo_Qwen3_1.7B_Wordle-SFT", "qwen3-1.7b", ""),
        ("/runs/olmo3-32b-instruct-SFT-1114-seed_33333/step814-hf", "olmo-3-32b", ""),
        ("acme/Nous-Mixtral-8x7B-v2", "mixtral-8x7b", ""),
        ("acme/llama-3.1-8b-1m-context", "llama-3.1-8b", ""),
        ("acme/qwen2.5-vl-7b-charts", "qwen2.5-vl-7b", ""),
        ("acme/llama-3-8b-poems-gptq-int4", "llama-3-8b", "gptq-int4"),
        ("./outputs/llama-3-8b-finetuned", "llama-3-8b", ""),
    ],
)
def test_a_derivative_is_taken_as_its_base(typed: str, base: str, storage: str) -> None:
    found = derivative(typed)
    assert found is not None
    assert (found.entry.name, found.derivative, found.storage) == (base, True, storage)
    model = find_model(typed, offline=True)
    assert model.name == base
    assert model.unread == f"what {typed} changes of {base} (its own config.json was not read)"


@pytest.mark.parametrize(
    "typed",
    [
        "models/llama3-8b-pro",
        "acme/Llama-3.1-8B-pruned-4B",
        "acme/llama-3-8b-moe-4x8b",
        "acme/qwen3-8b-frankenmerge",
        "acme/Qwen3-8B-28layers",
        "acme/Qwen3-8B_eagle3",
        "acme/InternVL3_5-GPT-OSS-20B-A4B",
        "acme/llama-3.1-8b-omni",
        "acme/Reward-Qwen3-8B",
        "acme/mistral-7b-poems",  # no version
        "acme/my-qwen-7b-tuned",  # two
    ],
)
def test_one_of_another_size_or_kind_is_asked_back(typed: str) -> None:
    with pytest.raises(AmbiguousName, match=UNLIKE_ITS_BASE):
        derivative(typed)


@pytest.mark.parametrize("typed", ["acme/poems-7b", "qwen3-27b", "", "///"])
def test_a_name_without_a_base_in_it_is_none(typed: str) -> None:
    assert derivative(typed) is None


def test_it_likely_fits_at_best_and_says_so() -> None:
    base, own = (advise(model=name, gpu="24GB", method="lora") for name in ("qwen3-1.7b", "qwen3-1.7b-poems"))
    assert (base.candidates[0].verdict, own.candidates[0].verdict) == ("fits", "tight")
    assert "what qwen3-1.7b-poems changes of qwen3-1.7b" in own.candidates[0].evidence.unknown[0]
    assert base.candidates[0].memory == own.candidates[0].memory


def test_its_own_config_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}
    (tmp_path / "llama-3-8b-poems").mkdir()
    (tmp_path / "llama-3-8b-poems" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = find_model("llama-3-8b-poems")
    assert (found.hidden_size, found.unread) == (64, "")
