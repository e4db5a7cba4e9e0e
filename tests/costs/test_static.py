"""What stands for the whole run, from published parameter counts times the bytes of each."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog import find_model
from advisor.costs.static import Static, static_memory
from advisor.specs import METHODS, QUANTIZED_METHODS, Recipe
from advisor.terms import TermName

LLAMA_1B = find_model("llama-3.2-1b")
PARAMETERS, EMBEDDING = 1_235_814_400, 128_256 * 2048
LAYERS = PARAMETERS - EMBEDDING
LINEARS = 16 * (2 * 2048 * 2048 + 2 * 512 * 2048 + 3 * 8192 * 2048)
"""Weights of the seven linear layers of each of 16 layers."""
TENSORS = 16 * 9 + 2
ADAPTERS = 11_272_192
"""LoRA of rank 16 on every linear layer."""


def static(method: Any, batch: int = 2, length: int = 100, **knobs: Any) -> Static:
    quant = "nf4" if method in QUANTIZED_METHODS else "none"
    return static_memory(LLAMA_1B, Recipe(**{"method": method, "quant": quant, **knobs}), batch, length)


def test_full_fine_tuning_in_16_bits() -> None:
    found = static("full", optimizer="adamw").exact
    assert found == {
        TermName.BASE_WEIGHTS: 2 * PARAMETERS,
        TermName.OPTIMIZER_STATES: 2 * 2 * PARAMETERS,
        TermName.STEP_COUNTERS: 4 * TENSORS,
        TermName.BUFFERS: 2 * 4 * 32,  # two tables of half a head of 64
        TermName.BATCH: 8 * 2 * 100,  # token ids in int64
    }


def test_adapters_in_fp32_beside_a_frozen_base() -> None:
    found = static("lora", optimizer="adamw", adapter_dtype="float32").exact
    assert found[TermName.BASE_WEIGHTS] == 2 * PARAMETERS
    assert found[TermName.ADAPTERS] == 4 * ADAPTERS
    assert found[TermName.OPTIMIZER_STATES] == 2 * 4 * ADAPTERS
    assert found[TermName.STEP_COUNTERS] == 4 * 2 * 7 * 16


@pytest.mark.parametrize(("kbit_upcast", "other_bytes"), [(True, 4), (False, 2)])
def test_four_bits_for_the_linear_layers_and_more_for_the_rest(kbit_upcast: bool, other_bytes: int) -> None:
    found = static("qlora", kbit_upcast=kbit_upcast, double_quant=False).exact
    assert found[TermName.BASE_WEIGHTS] == LINEARS // 2 + other_bytes * (PARAMETERS - LINEARS)
    assert found[TermName.QUANTIZATION_CONSTANTS] == 4 * LINEARS // 64 + 7 * 16 * 64


def test_int8_has_a_scale_for_each_output() -> None:
    found = static("qlora", quant="int8", kbit_upcast=False).exact
    assert found[TermName.BASE_WEIGHTS] == LINEARS + 2 * (PARAMETERS - LINEARS)
    assert found[TermName.QUANTIZATION_CONSTANTS] == 4 * 16 * (2 * 2048 + 2 * 512 + 2 * 8192 + 2048)


def test_tied_embeddings_stand_once() -> None:
    untied = LLAMA_1B.model_copy(update={"tie_word_embeddings": False})
    once, twice = (static_memory(m, Recipe(method="lora"), 1, 1).exact for m in (LLAMA_1B, untied))
    assert twice[TermName.BASE_WEIGHTS] - once[TermName.BASE_WEIGHTS] == 2 * EMBEDDING


@pytest.mark.parametrize("method", METHODS)
def test_blocks_are_what_is_exact_rounded_up(method: str) -> None:
    found = static(method, 3, 77)
    assert found.blocks.keys() == found.exact.keys()
    for term, size in found.blocks.items():
        assert size % 512 == 0
        assert found.exact[term] <= size, term
    assert found.blocks[TermName.BATCH] == 2048  # 3 x 77 x 8 bytes
