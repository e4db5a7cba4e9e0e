"""Layers with a gated delta rule in attention's place: Qwen 3.5, Qwen 3 Next, OLMo Hybrid.

Sources: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py, `Qwen3_5GatedDeltaNet.forward`;
models/qwen3_next/modeling_qwen3_next.py, `Qwen3NextGatedDeltaNet.forward`; models/olmo_hybrid/modeling_olmo_hybrid.py,
`OlmoHybridGatedDeltaNet.forward`. Locals live as long as they do there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from advisor.decoders.adapters import linear
from advisor.decoders.convolution import causal_convolution
from advisor.decoders.delta_kernels import fused_delta_rule
from advisor.decoders.delta_rule import RuleInputs, chunked_delta_rule
from advisor.decoders.norms import Norm, rms_norm_gated
from advisor.decoders.step_inputs import LayerInputs, unpadded
from advisor.decoders.weights import Weights
from advisor.parameters.token_mixers import recurrence_of
from advisor.specs import Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last, copy
from advisor.tape.ops import add, cast, mul, negate, scale, unary
from advisor.tape.pieces import joined_last
from advisor.tape.tape import Tape


def gated_delta(t: Tape, x: Tensor, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """Qwen 3.5's: x (B, S, H) -> (B, S, H)."""
    x = unpadded(t, x, given.padding)
    mixed = [linear(t, x, w.linears["in_proj_qkv"])]  # popped: the convolution's output takes its name
    z = linear(t, x, w.linears["in_proj_z"])
    b = linear(t, x, w.linears["in_proj_b"])
    a = linear(t, x, w.linears["in_proj_a"])
    return _ruled(t, mixed, _Rest(lambda: b, lambda: a, lambda: z, "out_proj", []), w, given, recipe)


def fused_delta(t: Tape, x: Tensor, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """Qwen 3 Next's, whose projections are joined head by head: x (B, S, H) -> (B, S, H)."""
    sizes = recurrence_of(w.m)
    x = unpadded(t, x, given.padding)
    joined = linear(t, x, w.linears["in_proj_qkvz"])
    steps = linear(t, x, w.linears["in_proj_ba"])
    t.label("gated delta rule")
    batch, length, _ = x.shape
    heads, groups = sizes.key_heads, sizes.value_heads // sizes.key_heads
    widths = (sizes.key_dim, sizes.key_dim, groups * sizes.value_dim, groups * sizes.value_dim)
    query, key, value, z = chunk_last(t, t.view(joined, (batch, length, heads, sum(widths))), widths)
    b, a = chunk_last(t, t.view(steps, (batch, length, heads, 2 * groups)), (groups, groups))
    if groups > 1:  # the heads of a group lie apart from the next group's
        value, z, b, a = (copy(t, part, part.shape) for part in (value, z, b, a))
    rows = (batch, length)
    query, key = (copy(t, part, (*rows, sizes.key_size)) for part in (query, key))
    value = t.view(value, (*rows, sizes.value_size)) if groups > 1 else copy(t, value, (*rows, sizes.value_size))
    held = [query, key, value]
    del query, key, value
    mixed = [joined_last(t, held)]
    z = t.view(z, (*rows, sizes.value_size))
    b, a = (t.view(part, (*rows, sizes.value_heads)) for part in (b, a))
    rest = _Rest(lambda: b, lambda: a, lambda: z, "out_proj", held)
    return _ruled(t, mixed, rest, w, given, recipe)


def apart_delta(t: Tape, x: Tensor, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """OLMo Hybrid's, whose projections are apart: x (B, S, H) -> (B, S, H)."""
    x = unpadded(t, x, given.padding)
    mixed = [joined_last(t, [linear(t, x, w.linears[name]) for name in ("q_proj", "k_proj", "v_proj")])]
    b, a, z = (partial(linear, t, x, w.linears[name]) for name in ("b_proj", "a_proj", "g_proj"))
    return _ruled(t, mixed, _Rest(b, a, z, "o_proj", []), w, given, recipe)


class _Rest(NamedTuple):
    """The other projections, which some codes make before they are used and some where they are."""

    b: Callable[[], Tensor]
    a: Callable[[], Tensor]
    z: Callable[[], Tensor]
    out_name: str
    held: list[Tensor]
    """What keeps its name until the convolution's output takes it."""


def _ruled(t: Tape, mixed: list[Tensor], rest: _Rest, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """Convolution, rule, gated norm and the projection back: (B, S, H)."""
    sizes, fused = recurrence_of(w.m), recipe.sequence_kernels == "packages"
    t.label("gated delta rule")
    convolved = causal_convolution(t, mixed.pop(), w.own["conv"], None, fused, activated=True)
    query, key, value = chunk_last(t, convolved, (sizes.key_size, sizes.key_size, sizes.value_size))
    rest.held.clear()
    batch, length, _ = value.shape
    query, key = (t.view(x, (batch, sizes.key_heads, length, sizes.key_dim)) for x in (query, key))
    value = t.view(value, (batch, sizes.value_heads, length, sizes.value_dim))
    beta = unary(t, rest.b(), "output")
    if sizes.doubles_step:
        beta = scale(t, beta)
    decay = _decay(t, [rest.a()], w)
    by_head = (batch, sizes.value_heads, length)
    inputs = RuleInputs(query, key, value, t.view(decay, by_head), t.view(beta, by_head))
    out = fused_delta_rule(t, inputs) if given.chunks is None else chunked_delta_rule(t, inputs, given.chunks)
    gate = rest.z()
    out = rms_norm_gated(t, out, t.view(gate, out.shape), _norm_weight(w))
    out = t.view(out, (batch, length, sizes.value_size))
    return linear(t, out, w.linears[rest.out_name])


def _decay(t: Tape, made: list[Tensor], w: Weights) -> Tensor:
    """`-A_log.float().exp() * softplus(a.float() + dt_bias)`: (B, S, HV)."""
    rate = negate(t, unary(t, cast(t, w.own["A_log"], "float32"), "output"))
    grown = [unary(t, add(t, cast(t, made.pop(), "float32"), w.own["dt_bias"]), "input")]
    return mul(t, grown.pop(), rate)


def _norm_weight(w: Weights) -> Tensor:
    norm = w.qk_norms[0]
    assert isinstance(norm, Norm) and norm.weight is not None
    return norm.weight
