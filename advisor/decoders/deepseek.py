"""DeepSeek's latent attention and its mixture, both also used by other families.

Latent attention (MLA) makes queries, keys and values from low-rank latents, with RoPE on a part of each head. The
mixture scores in fp32, picks experts by groups, and adds an expert that all tokens share.

Source: transformers 5.23, models/deepseek_v2 and models/deepseek_v3, modeling_*.py: `forward` and `expand_kv` of
the attention, `apply_rotary_pos_emb_interleave` (V3) and `apply_rotary_emb` (V2, on complex numbers),
`...TopkRouter`, `...MoE`.

Ignores: the groups' own scores and masks: tens of bytes per token and expert, freed before the experts run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.blocks import ITEM_BYTES
from advisor.decoders.adapters import linear
from advisor.decoders.experts import Experts, adapted_router, mixed, normalized, shared_expert
from advisor.decoders.gpt_oss import best
from advisor.decoders.linear import Linear, product
from advisor.decoders.llama4 import position_factors
from advisor.decoders.norms import HeadNorms, Norm
from advisor.decoders.rope import Rope, turned_pairs
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.layout import alias, cat_last, chunk_last, regathered, slice_last
from advisor.tape.ops import add, cast, mul, scale, softmax, unary
from advisor.tape.tape import Tape


class LatentHeads(NamedTuple):
    """Queries and keys (B, heads, S, D), values (B, heads, S, Dv), and what keeps a name until attention ends."""

    q: Tensor
    k: Tensor
    v: Tensor
    kept: tuple[Tensor, ...]
    latent: Tensor | None = None
    """The queries' latent, where an indexer reads it too."""


def latent_heads(
    t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms], rope: Rope
) -> LatentHeads:
    """Queries, keys and values of x (B, S, H); `norms` are those of the queries' latent, if any, and of the keys'."""
    batch, length, _ = x.shape
    heads, turned, plain = m.num_attention_heads, m.rotary_dim, m.head_dim - m.rotary_dim
    *q_names, kv_a_name, kv_b_name = m.qkv_names
    q = linear(t, x, linears[q_names[0]])
    q_latent = None
    if m.index_topk:
        q_latent = q = norms[0](t, q)
        q = linear(t, q, linears[q_names[1]])
    elif len(q_names) > 1:
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
    if architecture_of(m.architecture).scales_queries_by_position:
        query = mul(t, query, position_factors(t, length, query.dtype))
    keys, values = expanded(t, m, linear(t, latent, linears[kv_b_name]), k_turned)
    t.label("attention")
    return LatentHeads(query, keys, values, (q, compressed, latent, q_turned, k_turned), q_latent)


def _turned(t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    if architecture_of(m.architecture).rope_tables == "complex":
        return turned_complex(t, q, k, rope)
    half = rope.width // 2
    shape = (*rope.cos.shape[:-1], half)
    cos, sin = Tensor(shape, rope.cos.dtype, rope.cos.buffer), Tensor(shape, rope.sin.dtype, rope.sin.buffer)
    q_even, q_odd = slice_last(t, q, half), slice_last(t, q, half)
    k_even, k_odd = slice_last(t, k, half), slice_last(t, k, half)
    q_out = turned_pairs(t, q_even, q_odd, cos, sin)
    return q_out, turned_pairs(t, k_even, k_odd, cos, sin)


def turned_complex(t: Tape, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    """Neighboring features as complex fp32 numbers, times the table, and back."""
    wide_q, wide_k = cast(t, q, "float32"), cast(t, k, "float32")
    q_out = cast(t, mul(t, wide_q, rope.cos), q.dtype)
    return q_out, cast(t, mul(t, wide_k, rope.cos), k.dtype)


def expanded(t: Tape, m: ModelSpec, projected: Tensor, k_turned: Tensor) -> tuple[Tensor, Tensor]:
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


Scores = Callable[[Tape, Tensor, ModelSpec, Experts], tuple[Tensor, Tensor]]


def deepseek_v2_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, then the shared one."""
    return _feed_forward(t, x, m, w, linears, _softmax_scores)


def deepseek_v3_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, then the shared one."""
    return _feed_forward(t, x, m, w, linears, _sigmoid_scores)


def _feed_forward(
    t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear], scored: Scores
) -> Tensor:
    batch, length, width = x.shape
    rows = t.view(x, (batch * length, width))
    _logits, scores, _indices = _routed(t, rows, m, w, scored)
    out = t.view(mixed(t, rows, scores, m, w), x.shape)
    return add(t, out, shared_expert(t, x, m, linears))


def deepseek_v3_routed(t: Tape, x: Tensor, m: ModelSpec, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """V3's logits (T, E) of x (T, H), and scores and indices (T, K) of the best experts."""
    return _routed(t, x, m, w, _sigmoid_scores)


def _routed(t: Tape, x: Tensor, m: ModelSpec, w: Experts, scored: Scores) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H), and scores and indices (T, K) of the best experts."""
    t.label("router")
    logits = product(t, cast(t, x, "float32"), cast(t, adapted_router(t, w), "float32"))
    return logits, *scored(t, logits, m, w)


def _softmax_scores(t: Tape, logits: Tensor, m: ModelSpec, w: Experts) -> tuple[Tensor, Tensor]:
    """V2's scores and indices (T, K) of logits (T, E)."""
    top, indices = best(t, softmax(t, logits, "float32"), w.top_k)
    return scale(t, top), indices


def _sigmoid_scores(t: Tape, logits: Tensor, m: ModelSpec, w: Experts) -> tuple[Tensor, Tensor]:
    """V3's scores and indices (T, K) of logits (T, E): the experts are picked by groups."""
    scores = unary(t, logits, "output")
    note_groups(t, scores)
    top, indices = best(t, scores, w.top_k)
    if m.router_normalized:
        top = normalized(t, top)
    return scale(t, top), indices


def note_groups(t: Tape, scores: Tensor) -> None:
    """The kernels that pick the best groups of experts and mask the others: on scores (T, E) and on the few groups."""
    wide, flags, rows = scores.bytes, scores.count, 8 * scores.shape[0]
    t.kernel("elementwise", "float32", 0, 2 * wide)  # balanced
    for moved in (wide + rows, 2 * rows, 2 * rows, rows, rows):  # best two of a group, their sum, best groups, flags
        t.kernel("reduce", "float32", 0, moved)
    for moved in (wide, wide + flags, 2 * flags, 2 * wide + flags):  # spread over experts, as bools, negated, filled in
        t.kernel("elementwise", "float32", 0, moved)
    t.kernel("gather", "float32", 0, 3 * rows)
