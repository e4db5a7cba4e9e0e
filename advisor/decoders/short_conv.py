"""LFM2's gated short convolution.

Source: transformers 5.23, models/lfm2/modeling_lfm2.py, `Lfm2ShortConv.forward`.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.convolution import causal_convolution
from advisor.decoders.step_inputs import LayerInputs, unpadded
from advisor.decoders.weights import Weights
from advisor.specs import Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last, copy
from advisor.tape.ops import mul
from advisor.tape.tape import Tape


def short_conv(t: Tape, x: Tensor, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    h = w.m.hidden_size
    t.label("short convolution")
    x = unpadded(t, x, given.padding)
    mixed = linear(t, x, w.linears["in_proj"])
    before, after, x = chunk_last(t, mixed, (h, h, h))
    x = mul(t, before, x)
    x = causal_convolution(t, x, w.own["conv"], w.own.get("conv_bias"), recipe.sequence_kernels == "packages")
    y = mul(t, after, x)
    y = copy(t, y, y.shape)
    return linear(t, y, w.linears["out_proj"])
