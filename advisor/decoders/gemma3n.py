"""Gemma 3n's layer: four streams of hidden states, of which attention and MLP read the first, and what beside them.

AltUp predicts all streams, the layer's blocks make an output of the first, and AltUp corrects all by it. Laurel is a
narrow detour beside attention. Early layers cut the MLP's gate at a quantile. Locals live as long as they do there.
Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py, `Gemma3nTextDecoderLayer`, `Gemma3nTextAltUp`,
`Gemma3nTextLaurelBlock`, `Gemma3nTextMLP`.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.decoder import Decoder
from advisor.decoders.gemma4 import attention
from advisor.decoders.layer_inputs import gated_input
from advisor.decoders.linear import product
from advisor.decoders.mlp import activation
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.streams import added_to_others, added_to_view, clamped, first_of, repeated, standard_deviation
from advisor.decoders.weights import Weights
from advisor.parameters.layer_inputs import (
    CORRECTION,
    LAUREL,
    LAUREL_NORM,
    OUTPUT_SCALE,
    PREDICTION,
    ROUTER,
    ROUTER_NORM,
)
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import add, add_in_place, batched_matmul, cast, mean_last, mul, scale, shift, subtract, unary
from advisor.tape.tape import Tape


def gemma3n_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """All streams x (N, B, S, H) -> (N, B, S, H)."""
    t = d.t
    before, after, before_mlp, after_mlp = w.norms
    kept: list[Tensor] = []
    predictions = _predicted(t, x, w)
    active = first_of(t, predictions)
    normed = before(t, active)
    laurel = _laurel(t, normed, w)
    attended = attention(d, normed, w, given, kept)
    attended = after(t, attended)
    gated = add(t, active, attended)
    joined = scale(t, add(t, gated, laurel))
    normed_again = before_mlp(t, joined)
    mixed = _feed_forward(t, normed_again, w, given.kind.sparse)
    mixed_normed = after_mlp(t, mixed)
    activated = add(t, joined, mixed_normed)
    corrected = _corrected(t, predictions, activated, w)
    first = copy(t, first_of(t, corrected), activated.shape)
    made = [_scaled(t, first, w)]
    del first
    assert given.layer_input is not None
    first = gated_input(t, made, given.layer_input, w)
    t.label("streams")
    return added_to_others(t, corrected, first)


def _laurel(t: Tape, x: Tensor, w: Weights) -> Tensor:
    h = linear(t, x, w.linears[LAUREL[0]])
    h = linear(t, h, w.linears[LAUREL[1]])
    normed = w.further_norms[LAUREL_NORM](t, h)
    return add(t, x, normed)


def _modalities(t: Tape, x: Tensor, w: Weights) -> Tensor:
    """How much of each stream a token x (B, S, H) asks for: (B, S, N)."""
    inputs = scale(t, w.further_norms[ROUTER_NORM](t, x))
    routed = linear(t, inputs, w.linears[ROUTER])
    t.label("streams")
    return cast(t, unary(t, cast(t, routed, "float32"), "output"), x.dtype)


def _predicted(t: Tape, x: Tensor, w: Weights) -> Tensor:
    """All streams (N, B, S, H) mixed by what the first asks for, and added to themselves."""
    count, batch, length, width = x.shape
    modalities = _modalities(t, first_of(t, x), w)
    coefficients = w.linears[PREDICTION]
    t.kernel("elementwise", coefficients.weight.dtype, 0, 2 * coefficients.weight.bytes)  # clamped in place
    each = (batch * length, count, count)
    all_coefs = t.view(linear(t, modalities, coefficients), each)
    t.label("streams")
    rows = (batch * length, width, count)
    predictions = batched_matmul(t, t.view(x, rows), all_coefs, rows, count)
    predictions = t.view(predictions, x.shape)
    predictions = added_to_view(t, predictions, x, x.shape)
    return cast(t, copy(t, predictions, x.shape), x.dtype)


def _corrected(t: Tape, predictions: Tensor, activated: Tensor, w: Weights) -> Tensor:
    """The streams (N, B, S, H) with as much of what the first missed (B, S, H) as each asks for.

    The coefficients are multiplied by a clamped copy of the layer's weight, which passes over an adapter of it.
    """
    count, batch, length, _ = predictions.shape
    modalities = _modalities(t, activated, w)
    t.label("streams")
    innovation = subtract(t, activated, first_of(t, predictions))
    innovation = repeated(t, innovation, count)
    weight = clamped(t, w.linears[CORRECTION].weight, both=True)
    all_coefs = shift(t, product(t, modalities, weight))
    all_coefs = t.view(all_coefs, (count, batch, length, 1))
    corrected = mul(t, innovation, all_coefs)
    corrected = add_in_place(t, corrected, predictions)
    return cast(t, corrected, activated.dtype)


def _scaled(t: Tape, x: Tensor, w: Weights) -> Tensor:
    factor = w.own[OUTPUT_SCALE]
    return cast(t, mul(t, cast(t, x, factor.dtype), factor), x.dtype)


def _feed_forward(t: Tape, x: Tensor, w: Weights, sparse: bool) -> Tensor:
    gate_name, up_name, down_name = w.m.mlp_names
    gate = linear(t, x, w.linears[gate_name])
    if sparse:
        gate = _cut(t, gate)
    activated = activation(t, w.m.activation, gate)
    up = linear(t, x, w.linears[up_name])
    return linear(t, mul(t, activated, up), w.linears[down_name])


_SCALARS = 12
"""Small kernels that make the quantile of a normal distribution."""


def _cut(t: Tape, x: Tensor) -> Tensor:
    """x (B, S, I) less its mean and so many standard deviations of a token, where that is positive."""
    for _ in range(_SCALARS):
        t.kernel("elementwise", "float32", 0, 8)
    times = t.empty((1,), x.dtype)
    mean = mean_last(t, x)
    deviation = standard_deviation(t, x)
    cutoff = add(t, mean, mul(t, deviation, times))
    return unary(t, subtract(t, x, cutoff), "output")
