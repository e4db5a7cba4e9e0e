"""Kimi Linear: layers with a delta rule whose decay is of each feature, and latent attention without positions.

Source: transformers 5.23, models/kimi_linear/modeling_kimi_linear.py, `KimiLinearDeltaAttention.forward`,
`KimiLinearForgetGate.forward`, `KimiLinearRMSNormGated.forward` and `KimiLinearAttention.forward`. Locals live as long
as they do there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.decoders.adapters import linear
from advisor.decoders.convolution import causal_convolution
from advisor.decoders.deepseek import LatentHeads, expanded
from advisor.decoders.delta_rule import RuleInputs
from advisor.decoders.kimi_kernels import fused_kimi_rule
from advisor.decoders.kimi_rule import chunked_kimi_rule
from advisor.decoders.linear import Linear
from advisor.decoders.norms import HeadNorms, Norm, inverse_root, square
from advisor.decoders.step_inputs import LayerInputs, unpadded
from advisor.decoders.weights import Weights
from advisor.parameters.token_mixers import recurrence_of
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last, part
from advisor.tape.ops import add, cast, mean_last, mul, negate, shift, unary
from advisor.tape.pieces import chosen_where, joined_last
from advisor.tape.tape import Tape


def kimi_delta(t: Tape, x: Tensor, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    sizes = recurrence_of(w.m)
    x = unpadded(t, x, given.padding)
    mixed = [joined_last(t, [linear(t, x, w.linears[name]) for name in ("q_proj", "k_proj", "v_proj")])]
    t.label("delta rule")
    fused = recipe.sequence_kernels == "packages"
    convolved = causal_convolution(t, mixed.pop(), w.own["conv"], None, fused, activated=True)
    convolved = part(t, convolved, convolved.shape)
    parts = chunk_last(t, convolved, (sizes.key_size, sizes.key_size, sizes.value_size))
    by_head = (*x.shape[:2], sizes.value_heads, sizes.value_dim)
    query, key, value = (t.view(one, by_head) for one in parts)
    del parts
    decay = _forget_gate(t, x, w, by_head)
    beta = unary(t, linear(t, x, w.linears["b_proj"]), "output")
    t.label("delta rule")
    inputs = RuleInputs(query, key, value, decay, beta)
    out = fused_kimi_rule(t, inputs) if given.chunks is None else chunked_kimi_rule(t, inputs, given.chunks)
    gate = linear(t, linear(t, x, w.linears["g_a_proj"]), w.linears["g_b_proj"])
    gate = t.view(gate, by_head)
    norm = w.qk_norms[0]
    assert isinstance(norm, Norm) and norm.weight is not None
    out = _gated_norm(t, out, gate, norm.weight)
    out = t.view(out, (*x.shape[:2], sizes.value_size))
    return linear(t, out, w.linears["o_proj"])


def _forget_gate(t: Tape, x: Tensor, w: Weights, by_head: tuple[int, ...]) -> Tensor:
    """`-exp(A_log) * softplus(f_b(f_a(x)) + dt_bias)` in fp32, of every feature: (B, S, H, K)."""
    projected = linear(t, linear(t, x, w.linears["f_a_proj"]), w.linears["f_b_proj"])
    t.label("delta rule")
    grown = t.view(add(t, cast(t, projected, "float32"), cast(t, w.own["dt_bias"], "float32")), by_head)
    logarithm = cast(t, w.own["A_log"], "float32")
    rate = unary(t, logarithm, "output")
    large = t.empty(by_head, "bool")
    t.kernel("elementwise", "float32", 0, grown.bytes + large.bytes)
    softened = chosen_where(t, large, grown, unary(t, shift(t, unary(t, grown, "output")), "input"))
    del large
    return mul(t, softened, negate(t, rate))


def _gated_norm(t: Tape, x: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
    """An RMSNorm in fp32 times the sigmoid of a gate, cast back at the end."""
    dtype = x.dtype
    x = cast(t, x, "float32")
    variance = mean_last(t, square(t, x))
    x = mul(t, x, inverse_root(t, variance))
    x = mul(t, x, cast(t, weight, "float32"))
    x = mul(t, x, unary(t, cast(t, gate, "float32"), "output"))
    return cast(t, x, dtype)


def unturned_heads(
    t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms]
) -> LatentHeads:
    """Queries, keys and values (B, heads, S, D) of x (B, S, H), nothing of which is rotated."""
    batch, length, _ = x.shape
    *q_names, kv_a_name, kv_b_name = m.qkv_names
    q = linear(t, x, linears[q_names[0]])
    if len(q_names) > 1:
        q = linear(t, norms[0](t, q), linears[q_names[1]])
    query = t.view(q, (batch, m.num_attention_heads, length, m.head_dim))
    compressed = linear(t, x, linears[kv_a_name])
    latent, shared = chunk_last(t, compressed, (m.kv_lora_rank, m.rotary_dim))
    latent = t.view(norms[-1](t, latent), (batch, 1, length, m.kv_lora_rank))
    shared = t.view(shared, (batch, 1, length, m.rotary_dim))
    keys, values = expanded(t, m, linear(t, latent, linears[kv_b_name]), shared)
    t.label("attention")
    return LatentHeads(query, keys, values, (q, compressed, latent, shared))
