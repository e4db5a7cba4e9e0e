"""Bytes of quantized weights, by hand and by the bits that the QLoRA paper counts."""

from __future__ import annotations

import pytest

from advisor.catalog import find_model
from advisor.parameters.storage import (
    layer_quant,
    other_dtype,
    quantized_store_bytes,
    unquantized_layers,
    unquantized_name,
)
from advisor.specs import Recipe

QLORA = Recipe(method="qlora", quant="nf4")
ELEMENTS = 4096 * 4096


def test_double_quantization_costs_an_eighth_of_a_bit() -> None:
    """0.5 and 0.127 bits a parameter (Dettmers et al. 2023, arXiv:2305.14314, section 3), tables apart."""
    packed, (scales, table) = quantized_store_bytes(ELEMENTS, "nf4", double_quant=False)
    assert (packed, table) == (ELEMENTS // 2, 64)
    assert 8 * scales / ELEMENTS == 0.5
    packed, (small, scales, nested, table, offset) = quantized_store_bytes(ELEMENTS, "nf4", double_quant=True)
    assert (packed, nested, table, offset) == (ELEMENTS // 2, 1024, 64, 4)
    assert 8 * (small + scales) / ELEMENTS == pytest.approx(0.127, abs=0.0001)


def test_what_fills_no_whole_block_is_rounded_up() -> None:
    assert quantized_store_bytes(65, "fp4", double_quant=False) == (33, [4 * 2, 64])
    assert quantized_store_bytes(64 * 257, "nf4", double_quant=True) == (32 * 257, [257, 4 * 2, 1024, 64, 4])


def test_int8_is_a_byte_an_element() -> None:
    assert quantized_store_bytes(ELEMENTS, "int8", double_quant=True) == (ELEMENTS, [])


@pytest.mark.parametrize(
    ("recipe", "dtype"),
    [
        (Recipe(method="lora"), "bfloat16"),
        (Recipe(method="full", base_dtype="float16"), "float16"),
        (QLORA.model_copy(update={"kbit_upcast": True}), "float32"),
        (QLORA.model_copy(update={"kbit_upcast": False}), "bfloat16"),
    ],
)
def test_k_bit_preparation_lifts_the_rest(recipe: Recipe, dtype: str) -> None:
    assert other_dtype(recipe) == dtype


def test_falcons_layers_are_no_plain_linear_layers() -> None:
    assert layer_quant(find_model("llama-3.1-8b"), QLORA) == "nf4"
    assert layer_quant(find_model("falcon-7b"), QLORA) == "none"


def test_the_last_mlp_of_a_tied_model_without_norm_weights_is_spared() -> None:
    assert unquantized_name(find_model("olmo-1b")) == "down_proj"
    assert unquantized_name(find_model("llama-3.2-1b")) == ""


def test_fused_experts_stay_in_16_bits() -> None:
    """Mixtral: 96 % of the layers' parameters, which is why QLoRA saves next to nothing there."""
    experts, router, attention = 8 * 3 * 4096 * 14336, 8 * 4096, 2 * 4096 * 4096 + 2 * 4096 * 1024
    found = unquantized_layers(find_model("mixtral-8x7b"), QLORA.model_copy(update={"kbit_upcast": False}))
    assert found.bytes == 32 * 2 * (experts + router)
    assert found.share == pytest.approx((experts + router) / (experts + router + attention))
    assert unquantized_layers(find_model("llama-3.1-8b"), QLORA) == (0, 0.0)
