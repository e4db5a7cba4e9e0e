"""Falcon-H1's layer: attention and a state-space layer side by side, multipliers on all that they read and make.

Source: transformers 5.23, models/falcon_h1/modeling_falcon_h1.py, `FalconH1DecoderLayer` and `FalconH1MLP`, `forward`.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.decoder import Decoder
from advisor.decoders.mlp import activation
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.token_mixers import mixer_code
from advisor.decoders.weights import Weights
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, mul, scale


def falcon_h1_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """x (B, S, H) -> (B, S, H); what both sides made lives to the end."""
    t = d.t
    h = w.norms[0](t, x)
    mixed = mixer_code("mamba2")(t, h, w, given, d.recipe)
    mixed = scale(t, mixed)
    attended = d.attention(scale(t, h), w, given, [])
    attended = scale(t, attended)
    h = add(t, mixed, attended)
    h = add(t, x, h)
    x = h
    h = w.norms[1](t, h)
    h = _feed_forward(d, h, w)
    return add(t, x, h)


def _feed_forward(d: Decoder, x: Tensor, w: Weights) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    t = d.t
    gate, up, down = (w.linears[name] for name in w.m.mlp_names)
    y = mul(t, linear(t, x, up), activation(t, w.m.activation, scale(t, linear(t, x, gate))))
    y = scale(t, linear(t, y, down))
    return y
