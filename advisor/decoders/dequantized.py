"""The 16-bit weight of a layer made from its store, by the library that stored it.

Mirrors bitsandbytes 0.50 (functional.py, dequantize_4bit and int8_vectorwise_dequant).
"""

from __future__ import annotations

from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.decoders.linear import Linear
from advisor.decoders.unpacked import UNPACKED
from advisor.libraries import Version
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

FIRST_WITH_TABLE = (0, 48)
"""The bitsandbytes that dequantizes 4 bits by a table: github.com/bitsandbytes-foundation/bitsandbytes/pull/1747."""
DEQUANTIZE, BRANCHING, NESTED_OF_2023 = "dequantize", "dequantize before 0.48", "nested dequantize before 0.42"
DEQUANTIZING = (DEQUANTIZE, BRANCHING, NESTED_OF_2023)
"""Kinds of kernels: today's; with a branch for each bit; with nested constants in 0.41."""


def dequantize_kind(version: Version, nested: bool) -> str:
    """The kind of kernel that makes a 16-bit weight from 4 bits."""
    if nested and version < (0, 42):
        return NESTED_OF_2023
    return DEQUANTIZE if version >= FIRST_WITH_TABLE else BRANCHING


def dequantized(t: Tape, m: Linear) -> Tensor:
    """The 16-bit weight (O, I) made from its store."""
    if m.code.dequantize is not None:
        return m.code.dequantize(t, m)
    if m.quant == "int8":
        return dequantized_int8(t, m, m.weight.dtype)
    if m.quant in UNPACKED:
        return UNPACKED[m.quant](t, m.weight.shape, m.weight.dtype, m.recipe)
    return from_4_bits(t, m.weight.shape, m.weight.dtype, m.recipe.double_quant, m.code.bitsandbytes)


def from_4_bits(
    t: Tape, shape: tuple[int, ...], dtype: str, nested: bool, version: Version = FIRST_WITH_TABLE
) -> Tensor:
    """A weight in `dtype` made of one in 4 bits, whose constants are in 8 bits where `nested`."""
    count = prod(shape)
    blocks = count // 64
    kind = dequantize_kind(version, nested)
    absmax: Tensor | None = None
    if nested:
        absmax = t.empty((blocks,), "float32")
        t.kernel(kind, "float32", 0, absmax.bytes + blocks + blocks // 64 + 1024)  # with a table of 256
        t.kernel("elementwise", "float32", 0, 2 * absmax.bytes)
    t.kernel(kind, dtype, 0, count // 2 + 4 * blocks + count * ITEM_BYTES[dtype])
    out = t.empty(shape, dtype)
    del absmax
    return out


def dequantized_int8(t: Tape, m: Linear, dtype: str) -> Tensor:
    """The weight (O, I) in `dtype`: cast, then scaled by rows in place."""
    weight, rows = t.empty(m.weight.shape, dtype), 4 * m.out_features
    for moved in (2 * rows, weight.count + weight.bytes, 2 * weight.bytes + rows):
        t.kernel(DEQUANTIZE, dtype, 0, moved)
    return weight
