"""Multi-head latent attention: queries, keys and values from low-rank latents, RoPE on a part of each head.

Source: transformers 5.23, models/deepseek_v2 and models/deepseek_v3, modeling_*.py: `forward` and `expand_kv` of
the attention, `apply_rotary_pos_emb_interleave` (V3) and `apply_rotary_emb` (V2, on complex numbers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.decoders.adapters import linear
from advisor.decoders.linear import Linear
from advisor.decoders.norms import HeadNorms, Norm
from advisor.decoders.rope import Rope, turned_pairs
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import alias, cast, cat_last, chunk_last, mul, regathered, slice_last
from advisor.tape.tape import Tape


class LatentHeads(NamedTuple):
    """Queries and keys (B, heads, S, D), values (B, heads, S, Dv), and what keeps a name until attention ends."""

    q: Tensor
    k: Tensor
    v: Tensor
    kept: tuple[Tensor, ...]


def latent_heads(
    t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms], rope: Rope
) -> LatentHeads:
    """Queries, keys and values of x (B, S, H); `norms` are those of the queries' latent, if any, and of the keys'."""
    batch, length, _ = x.shape
    heads, turned, plain = m.num_attention_heads, m.rotary_dim, m.head_dim - m.rotary_dim
    *q_names, kv_a_name, kv_b_name = m.qkv_names
    q = linear(t, x, linears[q_names[0]])
    if len(q_names) > 1:
        q = linear(t, norms[0](t, q), linears[q_names[1]])
    q = regathered(t, t.view(q, (batch, heads, length, m.head_dim)))
    q_plain, q_turned = chunk_last(t, q, (plain, turned))
    compressed = linear(t, x, linears[kv_a_name])
    latent, k_turned = chunk_last(t, compressed, (m.kv_lora_rank, turned))
    latent = t.view(norms[-1](t, latent), (batch, 1, length, m.kv_lora_rank))
    k_turned = t.view(k_turned, (batch, 1, length, turned))
    t.label("attention")
    q_turned, k_turned = _turned(t, m, q_turned, k_turned, rope)
    query = cat_last(t, q_plain, q_turned)
    keys, values = _expanded(t, m, linear(t, latent, linears[kv_b_name]), k_turned)
    t.label("attention")
    return LatentHeads(query, keys, values, (q, compressed, latent, q_turned, k_turned))


def _turned(t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    if m.architecture == "deepseek_v2":
        return turned_complex(t, q, k, rope)
    half = rope.width // 2
    shape = (*rope.cos.shape[:-1], half)
    cos, sin = Tensor(shape, rope.cos.dtype, rope.cos.buffer), Tensor(shape, rope.sin.dtype, rope.sin.buffer)
    q_even, q_odd = slice_last(t, q, half), slice_last(t, q, half)
    k_even, k_odd = slice_last(t, k, half), slice_last(t, k, half)
    q_out = turned_pairs(t, q_even, q_odd, cos, sin)
    return q_out, turned_pairs(t, k_even, k_odd, cos, sin)


def turned_complex(t: Tape, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    """Neighbouring features as complex fp32 numbers, times the table, and back."""
    wide_q, wide_k = cast(t, q, "float32"), cast(t, k, "float32")
    q_out = cast(t, mul(t, wide_q, rope.cos), q.dtype)
    return q_out, cast(t, mul(t, wide_k, rope.cos), k.dtype)


def _expanded(t: Tape, m: ModelSpec, projected: Tensor, k_turned: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of every head: keys are an empty tensor into which both parts are copied."""
    batch, _, length, _ = projected.shape
    heads, plain = m.num_attention_heads, m.head_dim - m.rotary_dim
    projected = regathered(t, t.view(projected, (batch, heads, length, plain + m.value_dim)))
    k_plain, values = chunk_last(t, projected, (plain, m.value_dim))
    keys = t.empty((batch, heads, length, m.head_dim), projected.dtype)
    keys = _copied_into(t, keys, k_plain)
    return _copied_into(t, keys, k_turned), values


def _copied_into(t: Tape, whole: Tensor, part: Tensor) -> Tensor:
    """`whole[..., a:b].copy_(part)`, `part` expanded over the heads.

    Backward copies the gradient, clones the slice for `part`, and zeros it for what `whole` held before.
    Source: PyTorch 2.13, torch/csrc/autograd/functions/tensor.cpp, CopySlices.
    """
    shape, part_shape, part_dtype, whole_needs = whole.shape, part.shape, part.dtype, whole.needs_grad
    wide = (*shape[:-1], part_shape[-1])
    t.kernel("elementwise", whole.dtype, 0, part.bytes + prod(wide) * ITEM_BYTES[whole.dtype])

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor]:
        result = t.empty(shape, g.dtype)
        t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        out = t.empty(wide, g.dtype)
        t.kernel("elementwise", g.dtype, 0, 2 * out.bytes)
        if whole_needs:
            zeros = t.empty(wide, g.dtype)
            for passes in (1, 2):
                t.kernel("elementwise", g.dtype, 0, passes * zeros.bytes)
            del zeros
        return (result if whole_needs else None), cast(t, out, part_dtype)

    return alias(t, (whole, part), backward)
