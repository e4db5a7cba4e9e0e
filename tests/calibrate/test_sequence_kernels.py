from __future__ import annotations

import importlib.util
import sys

import pytest

from advisor.catalog import find_model
from advisor.specs import Recipe
from calibrate.sequence_kernels import as_run, missing, note_on


def test_a_cpu_runs_the_models_own_code_and_a_card_the_packages_that_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    m, recipe = find_model("lfm2-350m"), Recipe(method="lora")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing(m) == ["causal_conv1d"]
    assert as_run(recipe, m, "cuda").sequence_kernels == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: sys)
    assert as_run(recipe, m, "cuda").sequence_kernels == "packages"
    assert as_run(recipe, m, "cpu").sequence_kernels == "torch"
    assert note_on(m, as_run(recipe, m, "cpu")).endswith("PyTorch code (--sequence-kernels torch)")


def test_a_model_with_attention_alone_keeps_its_recipe() -> None:
    m, recipe = find_model("llama-3.2-1b"), Recipe(method="lora")
    assert as_run(recipe, m, "cpu") is recipe
    assert as_run(recipe, None, "cpu") is recipe
    assert note_on(m, recipe) == note_on(None, recipe) == ""
