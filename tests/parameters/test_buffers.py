"""Buffers, from the register_buffer() calls of transformers' code."""

from __future__ import annotations

import pytest

from advisor.catalog import find_model
from advisor.parameters.buffers import buffer_bytes, rope_kinds, rope_width
from advisor.specs import Recipe

LORA = Recipe(method="lora")


@pytest.mark.parametrize(
    ("name", "buffers"),
    [
        ("llama-3.1-8b", [(4 * 64, 2)]),  # inv_freq and original_inv_freq, half a head in fp32
        ("phi-2", [(4 * 16, 2)]),  # 32 of 80 features are turned
        ("gpt2", []),  # learned positions
        ("gemma-3-12b", [(4 * 128, 2), (4 * 128, 2), (4, 1)]),  # each kind of layer; the embedding's factor
        ("starcoder", [(8192**2, 1)]),  # a causal mask of bytes
        ("gpt-j-6b", [(4 * 2048 * 64, 28)]),  # sines and cosines of 2,048 positions in every layer
        ("deepseek-r1", [(4 * 32, 2), (4 * 256, 58)]),  # 64 features turned; a bias for each expert
    ],
)
def test_sizes_and_how_many(name: str, buffers: list[tuple[int, int]]) -> None:
    assert buffer_bytes(find_model(name), LORA) == buffers


def test_tables_by_kind_of_layer() -> None:
    assert rope_kinds(find_model("gemma-3-12b")) == {False, True}
    assert rope_kinds(find_model("mistral-7b")) == {False}
    assert rope_kinds(find_model("bloom-7b1")) == frozenset()


def test_global_layers_of_gemma_4_turn_their_own_heads() -> None:
    gemma = find_model("gemma-4-31b")
    assert rope_width(gemma, sliding=False) == gemma.global_head_dim
    assert rope_width(gemma, sliding=True) == gemma.head_dim
