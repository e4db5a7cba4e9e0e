"""gpt-oss: attention sinks, and experts behind a router with a bias, with a clamped gate over interleaved columns.

A sink is one learned score per head that joins every row of scores before the softmax. The rows of the experts
are sorted by expert and multiplied in one grouped product.

Sources: transformers 5.23, models/gpt_oss/modeling_gpt_oss.py (`eager_attention_forward`, `GptOssMLP`, `_apply_gate`),
integrations/moe.py (`grouped_mm_experts_forward`).
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.decoders.attention import Layout, model_repeat_kv, scores_of
from advisor.decoders.dequantized import from_4_bits
from advisor.decoders.linear import product
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.layout import cat_last, copy, slice_last
from advisor.tape.ops import (
    add,
    add_in_place,
    batched_matmul,
    cast,
    dropout,
    mul,
    promoted,
    scale,
    shift,
    softmax,
    subtract,
    unary,
)
from advisor.tape.tape import Tape


class OssExperts(NamedTuple):
    """The weights of one layer: router (E, H) and (E,), gate_up (E, H, 2 I) and (E, 2 I), down (E, I, H) and (E, H)."""

    router: Tensor
    router_bias: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    top_k: int
    logits: list[Tensor] | None = None
    """Of the router, where they are collected."""
    decodes: bool = False
    """The two stacks are in 4 bits, and made in 16 for each product."""
    nested: bool | None = None
    """They are in 4 bits, with constants in 8 bits or not, and made in 16 once, as a parametrization does."""


def oss_feed_forward(t: Tape, x: Tensor, w: OssExperts) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    batch, length, width = x.shape
    rows = t.view(x, (batch * length, width))
    _logits, scores, _indices = _routed(t, rows, w)
    return t.view(_experts(t, rows, scores, w), x.shape)


def _routed(t: Tape, x: Tensor, w: OssExperts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H), and scores and indices (T, K) of the best experts."""
    t.label("router")
    logits = collected(t, product(t, x, w.router, w.router_bias), w.logits)
    top, indices = best(t, logits, w.top_k)
    return logits, softmax(t, top, top.dtype), indices


def collected(t: Tape, logits: Tensor, into: list[Tensor] | None) -> Tensor:
    """A router's logits, kept as a hook on it keeps them, if any: a layer that runs again in backward adds none.

    Source: transformers 5.23, utils/output_capturing.py, output_capturing_hook.
    """
    if into is not None and not (t.replaying or t.rerunning):
        into.append(logits)
    return logits


def best(t: Tape, x: Tensor, count: int, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`topk` over the last axis: values and indices; backward writes into zeros (a trace into a second tensor).

    With `known`, indices that exist already, it is `gather`.
    """
    shape, dtype = x.shape, x.dtype
    indices = t.empty((*shape[:-1], count), "int64") if known is None else known
    index_bytes = indices.bytes
    t.kernel("reduce", dtype, 0, x.bytes + indices.count * ITEM_BYTES[dtype] + index_bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        zeros = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, zeros.bytes)
        t.kernel("gather", dtype, 0, 3 * g.bytes + index_bytes)
        return (t.empty(shape, dtype) if t.device == "cpu" else zeros,)

    return t.op((x,), indices.shape, dtype, backward, (indices,)), indices


def picked_rows(t: Tape, x: Tensor, count: int, index: Tensor) -> Tensor:
    """`x[index]`: `count` rows of x; backward adds into zeros (a trace into a second tensor)."""
    shape, dtype = x.shape, x.dtype
    out = (count, *shape[1:])
    size, index_bytes = Tensor(out, dtype).bytes, index.bytes
    t.kernel("gather", dtype, 0, 2 * size + index_bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        zeros = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, zeros.bytes)
        t.kernel("gather", dtype, 0, 3 * size + index_bytes)
        return (t.empty(shape, dtype) if t.device == "cpu" else zeros,)

    return t.op((x,), out, dtype, backward, (index,))


def grouped_product(
    t: Tape, x: Tensor, weight: Tensor, offsets: Tensor, out_features: int, decodes: bool = False
) -> Tensor:
    """Rows (N, I) of x times the weight of their expert (E, I, O): (N, O). Autocast does not touch it.

    `decodes`: the weight is in 4 bits, and made in 16 for the product, and again for that of backward.
    """
    x = cast(t, x, weight.dtype)
    dtype, shape, weight_shape = weight.dtype, x.shape, weight.shape
    rows, in_features = shape
    moved = ITEM_BYTES[dtype] * rows * (in_features + out_features) + weight.bytes

    def decoded() -> list[Tensor]:
        if not decodes:
            return []
        count = prod(weight_shape)
        t.kernel("dequantize", dtype, 0, count // 2 + count // 64 + count * ITEM_BYTES[dtype])
        return [t.empty(weight_shape, dtype)]

    scratch = decoded()
    t.matmul(dtype, rows, out_features, in_features, moved)
    x_needs, weight_needs = x.needs_grad, weight.needs_grad

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gx = gw = None
        if weight_needs:
            t.matmul(dtype, in_features, out_features, rows, moved)
            gw = t.empty(weight_shape, dtype)
        if x_needs:
            again = decoded()
            t.matmul(dtype, rows, in_features, out_features, moved)
            gx = t.empty(shape, dtype)
            again.clear()
        return gx, gw

    saved = ((x,) if weight_needs else ()) + ((weight,) if x_needs else ()) + (offsets,)
    out = t.op((x, weight), (rows, out_features), dtype, backward, saved)
    scratch.clear()
    return out


def _clamped(t: Tape, x: Tensor, bounds: int) -> Tensor:
    """`x.clamp(...)` with one bound or two: backward compares with each."""
    shape, dtype, size = x.shape, x.dtype, x.bytes
    t.kernel("elementwise", dtype, 0, 2 * size)

    def backward(g: Tensor) -> tuple[Tensor]:
        scratch = [t.empty((1,), dtype), *(t.empty(shape, "bool") for _ in range(bounds))]
        flags = scratch[1].bytes
        for moved in (*(size + flags,) * bounds, *(3 * flags,) * (bounds - 1), 2 * g.bytes + flags):
            t.kernel("elementwise", dtype, 0, moved)
        out = t.empty(shape, promoted(g.dtype, dtype))
        scratch.clear()
        return (out,)

    return t.op((x,), shape, dtype, backward, (x,))


def _gated(t: Tape, gate_up: Tensor) -> Tensor:
    """`(up + 1) * gate * sigmoid(alpha * gate)`, both clamped: (N, 2 I) -> (N, I)."""
    inner = gate_up.shape[-1] // 2
    gate, up = slice_last(t, gate_up, inner), slice_last(t, gate_up, inner)
    gate = _clamped(t, gate, 1)
    up = _clamped(t, up, 2)
    glu = mul(t, gate, unary(t, scale(t, gate), "output"))
    return mul(t, shift(t, up), glu)


def _sorted_by_expert(t: Tape, count: int, experts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Expert of each sorted row, the permutation, the row of x each came from, and where each expert ends."""
    expert, order = t.empty((count,), "int64"), t.empty((count,), "int64")
    note_sorting(t, count, experts)
    return expert, order, t.empty((count,), "int64"), t.empty((experts,), "float32")


def note_sorting(t: Tape, count: int, experts: int) -> None:
    """The kernels that order `count` choices by expert, and that put the rows back in the tokens' order."""
    t.kernel("reduce", "int64", 0, 24 * count)  # a sort: values, sorted values, permutation
    for moved in (16 * count, 12 * count, 4 * (count + experts), 8 * experts):  # row, cast, histogram, its sums
        t.kernel("elementwise", "int64", 0, moved)
    t.kernel("elementwise", "int64", 0, 8 * count)  # the inverse permutation: counted, put in place
    t.kernel("gather", "int64", 0, 32 * count)


def _experts(t: Tape, x: Tensor, scores: Tensor, w: OssExperts) -> Tensor:
    """The chosen experts of x (T, H), summed by their scores: (T, H)."""
    t.label("experts")
    tokens, width = x.shape
    count, experts = tokens * w.top_k, w.router.shape[0]
    expert, order, source, offsets = _sorted_by_expert(t, count, experts)
    chosen = picked_rows(t, x, count, source)
    del source
    factors = picked_rows(t, t.view(scores, (count,)), count, order)
    _histogram = t.empty((count,), "float32"), t.empty((experts,), "float32")
    gate_up = w.gate_up if w.nested is None else from_4_bits(t, w.gate_up.shape, w.gate_up.dtype, w.nested)
    bias = picked_rows(t, w.gate_up_bias, count, expert)
    out = add_in_place(t, grouped_product(t, chosen, gate_up, offsets, gate_up.shape[-1], w.decodes), bias)
    out = _gated(t, out)
    down = w.down if w.nested is None else from_4_bits(t, w.down.shape, w.down.dtype, w.nested)
    bias = picked_rows(t, w.down_bias, count, expert)
    out = add_in_place(t, grouped_product(t, out, down, offsets, width, w.decodes), bias)
    weighted = mul(t, out, t.view(factors, (count, 1)))
    inverse = t.empty((count,), "int64")
    arange = t.empty((count,), "int64")
    del arange
    weighted = picked_rows(t, weighted, count, inverse)
    return cast(t, summed(t, weighted, (tokens, width)), x.dtype)


def summed(t: Tape, x: Tensor, shape: tuple[int, int]) -> Tensor:
    """`x.view(T, K, H).sum(dim=1)`: the gradient is spread over all rows again."""
    before, dtype, moved = x.shape, x.dtype, x.bytes
    t.kernel("reduce", dtype, 0, moved + prod(shape) * ITEM_BYTES[dtype])

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, g.bytes + moved)
        return (t.empty(before, dtype),)

    return t.op((x,), shape, dtype, backward)


def sink_attention(
    t: Tape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor,
    m: ModelSpec,
    mask: Tensor | None,
    drops: bool,
    layout: Layout,
) -> tuple[Tensor, Tensor]:
    """q (B, H, S, D), `sinks` (H,) -> (B, H, S, D), token by token, and the weights (B, H, S, S)."""
    keys, values = model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)
    batch, heads, length, _ = q.shape
    if 1 < m.num_key_value_heads < heads:
        layout = layout._replace(k=True, v=True)
    weights = scale(t, scores_of(t, q, keys, (batch, heads, length, length), layout))
    if mask is not None:
        weights = add(t, weights, mask)
    wide = sinks_by_row(t, sinks, (batch, heads, length, 1))
    combined = cat_last(t, weights, wide)
    combined = subtract(t, combined, row_maxima(t, combined))
    probabilities = softmax(t, combined, combined.dtype)
    scores = slice_last(t, probabilities, length)
    weights = cast(t, dropout(t, scores) if drops else scores, values.dtype)
    values = values if layout.v else copy(t, values, values.shape)
    out = batched_matmul(t, weights, values, q.shape, length)
    return copy(t, out, out.shape), weights


def sinks_by_row(t: Tape, sinks: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The sinks for every row of every sequence: a view."""
    out = Tensor(shape, sinks.dtype, sinks.buffer)
    if sinks.needs_grad and t.grad_enabled:
        heads = sinks.shape

        def backward(g: Tensor) -> tuple[Tensor]:
            t.kernel("reduce", g.dtype, 0, g.bytes)
            return (t.empty(heads, g.dtype),)

        hollow = t.op((sinks,), (0,), sinks.dtype, backward)
        out.node, out.needs_grad = hollow.node, True
    return out


def row_maxima(t: Tape, x: Tensor) -> Tensor:
    """`x.max(dim=-1, keepdim=True).values`: keeps the indices; its backward writes into zeros.

    A trace with a dispatch mode writes into a second tensor, PyTorch itself in place.
    """
    shape, dtype = x.shape, x.dtype
    rows = (*shape[:-1], 1)
    indices = t.empty(rows, "int64")
    maxima = indices.count * ITEM_BYTES[dtype]
    t.kernel("reduce", dtype, 0, x.bytes + maxima + indices.bytes)
    put = 3 * maxima + indices.bytes

    def backward(g: Tensor) -> tuple[Tensor]:
        zeros = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, zeros.bytes)
        t.kernel("gather", dtype, 0, put)
        return (t.empty(shape, dtype) if t.device == "cpu" else zeros,)

    return t.op((x,), rows, dtype, backward, (indices,))
