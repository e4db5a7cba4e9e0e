"""The kernels that an estimate names, and why."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog.gpus import find_gpus
from advisor.catalog.models import find_model
from advisor.costs.attention import attention_text
from advisor.costs.estimation import estimate
from advisor.specs import AttentionUse, Recipe, Workload


def uses(model: str, gpu: str, seq_len: int = 512, **knobs: Any) -> tuple[AttentionUse, ...]:
    recipe = Recipe.model_validate({"method": "lora", **knobs})
    workload = Workload(seq_len=seq_len, mean_seq_len=min(512, seq_len))
    return estimate(find_model(model), recipe, workload, find_gpus(gpu)[0]).evidence.attention


@pytest.mark.parametrize(
    ("model", "gpu", "kernels"),
    [
        ("llama-3.2-1b", "NVIDIA A100-SXM4-80GB", ["flash"]),
        ("llama-3.2-1b", "NVIDIA GeForce RTX 4090", ["flash"]),
        ("llama-3.2-1b", "NVIDIA H100 80GB HBM3", ["cudnn"]),
        ("llama-3.2-1b", "Tesla T4", ["math"]),
        ("llama-3.2-1b", "Tesla V100-SXM2-32GB", ["math"]),
        ("llama-3.2-1b", "Tesla P100-PCIE-16GB", ["math"]),
        ("llama-2-7b", "Tesla T4", ["efficient"]),
        ("llama-3.2-1b", "AMD Instinct MI300X", ["unknown"]),
        ("gemma-3-1b", "NVIDIA L40S", ["flash"]),
    ],
)
def test_a_card_s_kernels(model: str, gpu: str, kernels: list[str]) -> None:
    found = uses(model, gpu, 400, base_dtype="float16")
    assert [use.kernel for use in found] == kernels
    assert not any(use.masked for use in found)


def test_layers_with_a_sliding_window_have_a_mask() -> None:
    found = {use.masked: use.kernel for use in uses("gemma-3-1b", "NVIDIA L40S", 2048)}
    assert found == {True: "efficient", False: "flash"}


def test_activations_in_fp32_run_math_attention_on_any_card() -> None:
    (kbit,) = uses("llama-3.2-1b", "NVIDIA L40S", method="qlora", quant="nf4", autocast=False)
    assert kbit.kernel == "math"
    assert "flash attention takes no float32" in kbit.why
    assert kbit.another_from == "2.14"
    (cast,) = uses("llama-3.2-1b", "NVIDIA L40S", method="qlora", quant="nf4", autocast=True)
    assert cast.kernel == "flash"


def test_what_was_asked_for_or_is_the_only_one() -> None:
    assert uses("llama-3.2-1b", "NVIDIA L40S", attention="flash")[0].kernel == "flash_attn"
    assert uses("llama-3.2-1b", "Tesla T4", attention="flash")[0].kernel == "none"
    assert uses("llama-3.2-1b", "NVIDIA L40S", attention="eager")[0].kernel == "eager"
    assert uses("falcon-7b", "NVIDIA L40S")[0].kernel == "math"


def test_in_words() -> None:
    assert attention_text(()) == ""
    assert attention_text(uses("llama-3.2-1b", "NVIDIA L40S")) == "flash attention, as PyTorch 2.13 picks it"
    both = attention_text(uses("gemma-3-1b", "NVIDIA L40S", 2048))
    assert "memory-efficient attention under a mask (flash attention takes no mask)" in both
    assert attention_text(uses("llama-3.2-1b", "AMD Instinct MI300X")) == (
        "an unknown kernel (what PyTorch picks on this card is not mirrored; estimated as flash attention)"
    )
