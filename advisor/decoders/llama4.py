"""Llama 4's queries and keys, and its mixture.

Queries and keys are rotated as complex numbers and normed where a layer has RoPE, else scaled by position. In the
mixture every expert sees every token, scaled by its score, beside an expert that all share.

Source: transformers 5.23, models/llama4/modeling_llama4.py, `Llama4TextAttention.forward`, `apply_rotary_emb`,
`Llama4TextMoe`, `Llama4Router`, `Llama4TextExperts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from advisor.decoders.gpt_oss import best
from advisor.decoders.linear import Linear, product
from advisor.decoders.mlp import activation, feed_forward
from advisor.decoders.norms import unit_norm
from advisor.decoders.rope import Rope
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last, copy
from advisor.tape.ops import add_in_place, batched_matmul, cast, mul, unary
from advisor.tape.tape import Tape


def placed(t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope | None) -> tuple[Tensor, Tensor]:
    """Queries (B, heads, S, D) and keys (B, KV, S, D) with their positions; `rope` is None in a layer without RoPE."""
    if rope is not None:
        q, k = _turned(t, q, k, rope)
        if m.qk_norm == "unit":
            q = unit_norm(t, q)
            k = unit_norm(t, k)
    elif m.attention_temperature:
        q = cast(t, mul(t, q, position_factors(t, q.shape[2], "float32")), q.dtype)
    return q, k


def position_factors(t: Tape, length: int, dtype: str) -> Tensor:
    """A number for each position (1, 1, S, 1), recomputed in every layer by a handful of small kernels."""
    for _ in range(7):  # scaled, floored, shifted, logarithm, scaled, shifted, cast
        t.kernel("elementwise", "float32", 0, 8 * length)
    return t.empty((1, 1, length, 1), dtype)


def _turned(t: Tape, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    wide_q, wide_k = cast(t, q, "float32"), cast(t, k, "float32")
    q_out = mul(t, wide_q, rope.cos)
    k_out = mul(t, wide_k, rope.cos)
    return cast(t, q_out, q.dtype), cast(t, k_out, k.dtype)


class Llama4Experts(NamedTuple):
    """The weights of one layer's mixture: router (E, H), gate_up (E, H, 2 I), down (E, I, H)."""

    router: Tensor
    gate_up: Tensor
    down: Tensor
    top_k: int


def llama4_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Llama4Experts, shared: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H); `shared` are the linear layers of the shared expert."""
    batch, length, width = x.shape
    tokens, experts = batch * length, w.router.shape[0]
    rows = t.view(x, (tokens, width))
    scores, _logits = _scores(t, rows, w)
    t.label("experts")
    routed = _repeated(t, rows, experts)
    routed = mul(t, routed, t.view(copy(t, scores, (experts, tokens)), (experts * tokens, 1)))
    routed_out = _experts(t, m, routed, w)
    out = feed_forward(t, rows, m, shared)
    out = add_in_place(t, out, _sum_of_experts(t, routed_out, (tokens, width)))
    return t.view(out, x.shape)


def _scores(t: Tape, x: Tensor, w: Llama4Experts) -> tuple[Tensor, Tensor]:
    """Scores (T, E), 0 for every expert that is not among the best, and logits (T, E)."""
    t.label("router")
    logits = product(t, x, w.router)
    top, indices = best(t, logits, w.top_k)
    scores = _scattered(t, top, indices, logits)
    scores = cast(t, unary(t, cast(t, scores, "float32"), "output"), scores.dtype)
    return scores, logits


def _scattered(t: Tape, top: Tensor, indices: Tensor, like: Tensor) -> Tensor:
    """`full_like(like, -inf).scatter_(1, indices, top)`; backward gathers."""
    dtype, shape = top.dtype, top.shape
    t.kernel("gather", dtype, 0, 2 * like.bytes)
    return t.op((top,), like.shape, dtype, lambda g: (t.empty(shape, dtype),), (indices,))


def _repeated(t: Tape, x: Tensor, times: int) -> Tensor:
    """`x.repeat(times, 1)`: the gradient is summed over the repeats."""
    shape, dtype, moved = x.shape, x.dtype, x.bytes * (1 + times)
    t.kernel("elementwise", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("reduce", dtype, 0, moved)
        return (t.empty(shape, g.dtype),)

    return t.op((x,), (times * shape[0], *shape[1:]), dtype, backward)


def _experts(t: Tape, m: ModelSpec, x: Tensor, w: Llama4Experts) -> Tensor:
    """All experts on rows (E T, H) that are ordered expert by expert."""
    experts, width, inner = w.gate_up.shape
    tokens = x.shape[0] // experts
    apart = t.view(x, (experts, tokens, width))
    gate_up = batched_matmul(t, apart, w.gate_up, (experts, tokens, inner), width)
    gate, up = chunk_last(t, gate_up, (inner // 2, inner // 2))
    gated = mul(t, up, activation(t, m.activation, gate))
    return t.view(batched_matmul(t, gated, w.down, (experts, tokens, width), inner // 2), x.shape)


def _sum_of_experts(t: Tape, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`x.reshape(E, T, H).sum(dim=0)` of rows (E T, H): the gradient is copied for every expert."""
    before, dtype, moved = x.shape, x.dtype, x.bytes
    t.kernel("reduce", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 2 * moved)
        return (t.empty(before, dtype),)

    return t.op((x,), shape, dtype, backward)
