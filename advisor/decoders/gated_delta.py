"""Layers with a gated delta rule in attention's place: Qwen 3.5, Qwen 3 Next, OLMo Hybrid.

Sources: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py, `Qwen3_5GatedDeltaNet.forward`;
models/qwen3_next/modeling_qwen3_next.py, `Qwen3NextGatedDeltaNet.forward`; models/olmo_hybrid/modeling_olmo_hybrid.py,
`OlmoHybridGatedDeltaNet.forward`. Locals live as long as they do there.
"""

from __future__ import annotations

from collections.abc import Callable
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
from advisor.tape.layout import chunk_last
from advisor.tape.ops import add, cast, mul, negate, unary
from advisor.tape.tape import Tape


def gated_delta(t: Tape, x: Tensor, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """Qwen 3.5's: x (B, S, H) -> (B, S, H)."""
    x = unpadded(t, x, given.padding)
    mixed = [linear(t, x, w.linears["in_proj_qkv"])]  # popped: the convolution's output takes its name
    z = linear(t, x, w.linears["in_proj_z"])
    b = linear(t, x, w.linears["in_proj_b"])
    a = linear(t, x, w.linears["in_proj_a"])
    return _ruled(t, mixed, _Rest(lambda: b, lambda: a, lambda: z, "out_proj"), w, given, recipe)


class _Rest(NamedTuple):
    """The other projections, which some codes make before they are used and some where they are."""

    b: Callable[[], Tensor]
    a: Callable[[], Tensor]
    z: Callable[[], Tensor]
    out_name: str


def _ruled(t: Tape, mixed: list[Tensor], rest: _Rest, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """Convolution, rule, gated norm and the projection back: (B, S, H)."""
    sizes, fused = recurrence_of(w.m), recipe.sequence_kernels == "packages"
    t.label("gated delta rule")
    convolved = causal_convolution(t, mixed.pop(), w.own["conv"], None, fused, activated=True)
    query, key, value = chunk_last(t, convolved, (sizes.key_size, sizes.key_size, sizes.value_size))
    batch, length, _ = value.shape
    query, key = (t.view(x, (batch, sizes.key_heads, length, sizes.key_dim)) for x in (query, key))
    value = t.view(value, (batch, sizes.value_heads, length, sizes.value_dim))
    beta = unary(t, rest.b(), "output")
    decay = _decay(t, rest.a(), w)
    by_head = (batch, sizes.value_heads, length)
    inputs = RuleInputs(query, key, value, t.view(decay, by_head), t.view(beta, by_head))
    out = fused_delta_rule(t, inputs) if given.chunks is None else chunked_delta_rule(t, inputs, given.chunks)
    gate = rest.z()
    out = rms_norm_gated(t, out, t.view(gate, out.shape), _norm_weight(w))
    out = t.view(out, (batch, length, sizes.value_size))
    return linear(t, out, w.linears[rest.out_name])


def _decay(t: Tape, a: Tensor, w: Weights) -> Tensor:
    """`-A_log.float().exp() * softplus(a.float() + dt_bias)`: (B, S, HV)."""
    rate = negate(t, unary(t, cast(t, w.own["A_log"], "float32"), "output"))
    grown = [unary(t, add(t, cast(t, a, "float32"), w.own["dt_bias"]), "input")]
    return mul(t, grown.pop(), rate)


def _norm_weight(w: Weights) -> Tensor:
    norm = w.qk_norms[0]
    assert isinstance(norm, Norm) and norm.weight is not None
    return norm.weight
