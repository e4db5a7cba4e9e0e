"""Linear layers with an adapter in LoRA's place: OFT, IA3 and VeRA.

Mirrors peft 0.21 (tuners/oft/layer.py; tuners/ia3/layer.py and bnb.py; tuners/vera/layer.py).
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.decoders.base_linear import base_linear
from advisor.decoders.linear import Linear, product
from advisor.decoders.rotation import rotated
from advisor.parameters.replacing import scales_input, shared_dtype
from advisor.specs import Variant
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import add, cast, dropout, mul, scale
from advisor.tape.tape import Tape

COPIED = ("nf4", "fp4")
"""Bases whose result peft copies before it adds to it: tuners/lora/bnb.py, Linear4bit; utils/quantization_utils.py."""


def _rotated(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """The base layer on what OFT makes of its input, which lives until the layer has run."""
    (rotation,) = m.replacing
    t.label(f"{m.name}, OFT")
    inner = cast(t, x, rotation.dtype)
    inner = rotated(t, inner, rotation)
    t.label(m.name)
    return cast(t, base_linear(t, cast(t, inner, x.dtype), m), x.dtype)


def _scaled(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """IA3: the layer's output times a vector, or its input where it is the MLP's last.

    The vector is multiplied by 1 first. On bitsandbytes' bases the product stays in fp32, but where the input was cast
    to that because autocast is not on for CUDA, the only one that peft asks for.
    """
    (vector,) = m.replacing
    reads = scales_input(m.name)
    t.label(f"{m.name}, IA3")
    scaling = scale(t, vector)
    if m.quant == "none":
        return _scaled_of_16_bits(t, x, m, scaling, reads)
    converts = x.dtype != "float32" and not (t.autocast and t.device == "cuda")
    if converts:
        x = cast(t, x, "float32")
    result = _labeled(t, mul(t, x, scaling) if reads else x, m)
    expected = result.dtype
    if not reads:
        result = mul(t, result, scaling)
    if m.quant in COPIED:
        result = copy(t, result, result.shape)
    return cast(t, result, expected) if converts else result


def _scaled_of_16_bits(t: Tape, x: Tensor, m: Linear, scaling: Tensor, reads: bool) -> Tensor:
    """The same of a base in 16 bits: input or output keep their dtype."""
    if reads:
        before = x.dtype
        x = cast(t, x, scaling.dtype)
        inner = cast(t, mul(t, x, scaling), before)
        return _labeled(t, inner, m)
    result = _labeled(t, x, m)
    return cast(t, mul(t, result, scaling), result.dtype)


def _labeled(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """The layer without its adapter, under its own label."""
    t.label(m.name)
    out = base_linear(t, x, m)
    t.label(f"{m.name}, IA3")
    return out


def _with_vectors(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """VeRA: LoRA whose A and B are frozen and shared by all layers, each followed by a vector of the layer's own.

    Each layer reads the upper left of both; autocast casts it anew each time, as a buffer's cast is not kept.
    """
    of_ranks, dtype = m.replacing[1], shared_dtype(m.recipe)
    rank = of_ranks.shape[0]
    shared = Tensor((rank, m.in_features), dtype), Tensor((m.out_features, rank), dtype)
    before = x.dtype
    result = base_linear(t, x, m)
    t.label(f"{m.name}, VeRA")
    expected = result.dtype
    if m.quant in COPIED:
        result = copy(t, result, result.shape)
    x = cast(t, x, of_ranks.dtype)
    result = add(t, result, _update(t, x, m, shared))
    result = cast(t, result, expected)
    t.label(m.name)
    return cast(t, result, before)


def _update(t: Tape, x: Tensor, m: Linear, shared: tuple[Tensor, Tensor]) -> Tensor:
    """What VeRA adds for x (B, S, I): (B, S, O). No intermediate has a name."""
    of_outputs, of_ranks = m.replacing
    first, second = shared

    def inner() -> Tensor:
        return product(t, dropout(t, x) if m.recipe.dropout else x, first)

    return mul(t, of_outputs, product(t, mul(t, of_ranks, inner()), second))


REPLACED: dict[Variant, Callable[[Tape, Tensor, Linear], Tensor]] = {
    "oft": _rotated,
    "ia3": _scaled,
    "vera": _with_vectors,
}
"""By variant: what runs for a linear layer, x (B, S, I) -> (B, S, O)."""
