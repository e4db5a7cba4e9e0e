"""Mamba 2's state-space layer in attention's place.

Source: transformers 5.23, models/granitemoehybrid/modeling_granitemoehybrid.py, `GraniteMoeHybridMambaLayer.forward`,
and the same of models/{bamba,nemotron_h}/modeling_*.py.
"""

from __future__ import annotations

from advisor.architectures import architecture_of
from advisor.decoders.adapters import linear
from advisor.decoders.chunk_scan import Constants, Scanned, chunk_scan
from advisor.decoders.convolution import causal_convolution
from advisor.decoders.fused_scan import Learned, fused_scan
from advisor.decoders.norms import inverse_root, square
from advisor.decoders.step_inputs import LayerInputs, unpadded
from advisor.decoders.weights import Weights
from advisor.parameters.token_mixers import recurrence_of
from advisor.specs import Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last
from advisor.tape.ops import cast, mean_last, mul, negate, scale, unary
from advisor.tape.tape import Tape


def mamba2(t: Tape, x: Tensor, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    sizes, own, dtype = recurrence_of(w.m), w.own, x.dtype
    batch, length, _ = x.shape
    inner, keys_size, heads, groups = sizes.value_size, sizes.key_size, sizes.value_heads, sizes.key_heads
    t.label("state-space layer")
    x = unpadded(t, x, given.padding)
    scales = architecture_of(w.m.architecture).scales_state_space
    if scales:
        x = scale(t, x)
    projected = linear(t, x, w.linears["in_proj"])
    if scales:
        projected = mul(t, projected, Tensor((projected.shape[-1],), recipe.base_dtype))
    t.label("state-space layer")
    decay = negate(t, unary(t, cast(t, own["a_log"], "float32"), "output"))
    if given.chunks is None:
        norm = own.get("gate_norm")
        learned = Learned(own["conv"], own.get("conv_bias"), own["dt_bias"], decay, own["d"], norm)
        return fused_scan(t, projected, learned, w.linears["out_proj"], sizes)
    gate, mixed, steps = chunk_last(t, projected, (inner, inner + 2 * keys_size, heads))
    mixed = causal_convolution(t, mixed, own["conv"], own.get("conv_bias"), fused=False, activated=True)
    mixed = unpadded(t, mixed, given.padding)
    x, keys, queries = chunk_last(t, mixed, (inner, keys_size, keys_size))
    rows = (batch, length)
    by_group = (*rows, groups, sizes.key_dim)
    values = t.view(x, (*rows, heads, sizes.value_dim))
    scanned = chunk_scan(
        t,
        Scanned(values, steps, t.view(keys, by_group), t.view(queries, by_group)),
        Constants(decay, own["d"], own["dt_bias"]),
        given.chunks,
    )
    out = t.view(scanned, (*rows, inner))
    if sizes.gate_norm:
        code = weighed_gated_norm if scales else gated_norm
        out = code(t, out, gate, own["gate_norm"], groups)
    else:
        out = mul(t, out, unary(t, gate, "input"))
    return linear(t, cast(t, out, dtype), w.linears["out_proj"])


def gated_norm(t: Tape, x: Tensor, gate: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The RMSNorm by groups of x (B, S, I) times its gate, in fp32, cast back, then times the weight.

    Source: transformers 5.23, models/granitemoehybrid/modeling_granitemoehybrid.py, `GraniteMoeHybridRMSNormGated`.
    """
    before, dtype = x.shape, x.dtype
    x = cast(t, x, "float32")
    x = mul(t, x, unary(t, cast(t, gate, "float32"), "input"))
    grouped = t.view(x, (*before[:-1], groups, before[-1] // groups))
    variance = mean_last(t, square(t, grouped))
    grouped = mul(t, grouped, inverse_root(t, variance))
    x = t.view(grouped, before)
    return mul(t, weight, cast(t, x, dtype))


def weighed_gated_norm(t: Tape, x: Tensor, gate: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The same of Falcon-H1: its weight in groups, too, and multiplied in fp32, before all is cast back.

    Source: transformers 5.23, models/falcon_h1/modeling_falcon_h1.py, `FalconH1RMSNormGated`, norm_before_gate=False.
    """
    before, dtype = x.shape, x.dtype
    x = cast(t, mul(t, x, unary(t, cast(t, gate, "float32"), "input")), "float32")
    x = t.view(x, (*before[:-1], groups, before[-1] // groups))
    variance = mean_last(t, square(t, x))
    x = mul(t, x, inverse_root(t, variance))
    x = mul(t, t.view(weight, (groups, before[-1] // groups)), x)
    return cast(t, t.view(x, before), dtype)
