"""From hidden states to queries, keys and values: separate or fused projections, and how each code splits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.architectures import architecture_of
from advisor.decoders.adapters import linear
from advisor.decoders.linear import Linear
from advisor.decoders.norms import HeadNorms, Norm
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last, copy, pick_last, repeat_kv, slice_last
from advisor.tape.ops import scale
from advisor.tape.tape import Tape

Triple = tuple[Tensor, Tensor, Tensor]


def queries_keys_values(
    t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms]
) -> Triple:
    """Queries (B, heads, S, D), keys and values (B, KV, S, D) of x (B, S, H); `norms` are those of q and k, if any."""
    if m.fused_qkv:
        return _split(t, linear(t, x, linears[m.qkv_names[0]]), m)
    batch, length, _ = x.shape
    q_shape = (batch, m.num_attention_heads, length, m.head_dim)
    kv_shape = (batch, m.num_key_value_heads, length, m.head_dim)
    q_name, k_name, v_name = m.qkv_names
    quirks = architecture_of(m.architecture)
    normed = m.qk_norm if not quirks.norms_after_rope else "none"
    norms_last = normed != "none" and quirks.norms_after_values
    if normed == "full":
        q = t.view(norms[0](t, linear(t, x, linears[q_name])), q_shape)
        k = t.view(norms[1](t, linear(t, x, linears[k_name])), kv_shape)
    elif normed == "head" and not norms_last:
        q = norms[0](t, t.view(linear(t, x, linears[q_name]), q_shape))
        k = norms[1](t, t.view(linear(t, x, linears[k_name]), kv_shape))
    else:
        projected = [linear(t, x, linears[q_name])]
        if quirks.scales_projected_queries:
            projected[0] = scale(t, projected[0])
        q = t.view(projected.pop(), q_shape)
        k = t.view(linear(t, x, linears[k_name]), kv_shape)
        if quirks.scales_projected_keys:
            k = scale(t, k)
    v = t.view(linear(t, x, linears[v_name]), (*kv_shape[:-1], m.value_dim))
    if quirks.scales_values:
        v = scale(t, v)
    if norms_last:
        q = norms[0](t, q)
        k = norms[1](t, k)
    return q, k, v


def gated_heads(
    t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries (B, heads, S, D), keys and values (B, KV, S, D) of x (B, S, H), and the gate (B, S, heads * D).

    Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py, Qwen3_5Attention.forward.
    """
    batch, length, _ = x.shape
    kv_shape = (batch, m.num_key_value_heads, length, m.head_dim)
    q_name, k_name, v_name = m.qkv_names
    both = t.view(linear(t, x, linears[q_name]), (batch, length, m.num_attention_heads, 2 * m.head_dim))
    q, gate = chunk_last(t, both, (m.head_dim, m.head_dim))
    del both
    gate = copy(t, gate, (batch, length, m.q_size))
    q = norms[0](t, t.view(q, (batch, m.num_attention_heads, length, m.head_dim)))
    k = norms[1](t, t.view(linear(t, x, linears[k_name]), kv_shape))
    return q, k, t.view(linear(t, x, linears[v_name]), kv_shape), gate


def _split(t: Tape, fused: Tensor, m: ModelSpec) -> Triple:
    """The three parts of a fused projection (B, S, all heads)."""
    batch, length, _ = fused.shape
    sizes = (m.q_size, m.kv_size, m.kv_size)
    q_shape = (batch, m.num_attention_heads, length, m.head_dim)
    kv_shape = (batch, m.num_key_value_heads, length, m.head_dim)
    splits = architecture_of(m.architecture).splits_fused
    if splits != "chunks":
        fused = t.view(fused, fused.shape)
    if splits == "indices" and m.num_key_value_heads < m.num_attention_heads:
        # A list of indices copies where a slice would not.
        q = slice_last(t, fused, m.q_size)
        k, v = pick_last(t, fused, m.kv_size), pick_last(t, fused, m.kv_size)
    elif splits != "chunks":
        q, k, v = (slice_last(t, fused, size) for size in sizes)
    else:
        q, k, v = chunk_last(t, fused, sizes)
    q, k, v = t.view(q, q_shape), t.view(k, kv_shape), t.view(v, kv_shape)
    if splits == "indices" and 1 < m.num_key_value_heads < m.num_attention_heads:
        groups = m.num_attention_heads // m.num_key_value_heads
        return copy(t, q, q_shape), repeat_kv(t, k, groups), repeat_kv(t, v, groups)
    return q, k, v
