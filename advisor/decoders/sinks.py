"""Attention sinks (gpt-oss): one learnt score a head that stands beside every row of scores before the softmax.

Source: transformers 5.23, models/gpt_oss/modeling_gpt_oss.py, `eager_attention_forward`.
"""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.decoders.attention import Layout, model_repeat_kv, scores_of
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import (
    add,
    batched_matmul,
    cast,
    cat_last,
    copy,
    dropout,
    scale,
    slice_last,
    softmax,
    subtract,
)
from advisor.tape.tape import Tape


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
    wide = _expanded(t, sinks, (batch, heads, length, 1))
    combined = cat_last(t, weights, wide)
    combined = subtract(t, combined, _row_maxima(t, combined))
    probabilities = softmax(t, combined, combined.dtype)
    scores = slice_last(t, probabilities, length)
    weights = cast(t, dropout(t, scores) if drops else scores, values.dtype)
    values = values if layout.v else copy(t, values, values.shape)
    out = batched_matmul(t, weights, values, q.shape, length)
    return copy(t, out, out.shape), weights


def _expanded(t: Tape, sinks: Tensor, shape: tuple[int, ...]) -> Tensor:
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


def _row_maxima(t: Tape, x: Tensor) -> Tensor:
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
