"""MiMo V2's eager attention: values narrower than keys and scaled, sinks in sliding layers alone.

Source: transformers 5.23, models/mimo_v2_flash/modeling_mimo_v2_flash.py, `eager_attention_forward`.
"""

from __future__ import annotations

from advisor.decoders.attention import Layout, model_repeat_kv, scores_of
from advisor.decoders.gpt_oss import row_maxima, sinks_by_row
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.layout import cat_last, copy, slice_last
from advisor.tape.ops import add, batched_matmul, cast, dropout, scale, softmax, subtract
from advisor.tape.tape import Tape


def mimo_attention(
    t: Tape, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, m: ModelSpec, mask: Tensor | None, layout: Layout
) -> tuple[Tensor, Tensor]:
    """q (B, H, S, D), v (B, KV, S, Dv), `sinks` (H,) if any -> (B, H, S, Dv), token by token; weights (B, H, S, S)."""
    keys, values = model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)
    batch, heads, length, _ = q.shape
    if 1 < m.num_key_value_heads < heads:
        layout = layout._replace(k=True, v=True)
    elif m.num_key_value_heads < heads:  # a view of one head, which the product of several rows copies
        layout = layout._replace(k=layout.single_row, v=layout.single_row)
    weights = scale(t, scores_of(t, q, keys, (batch, heads, length, length), layout))
    if mask is not None:
        weights = add(t, weights, mask)
    if sinks is not None:
        weights = cat_last(t, weights, sinks_by_row(t, sinks, (batch, heads, length, 1)))
    weights = subtract(t, weights, row_maxima(t, weights))
    probabilities = softmax(t, weights, weights.dtype)
    if sinks is not None:
        probabilities = slice_last(t, probabilities, length)
    weights = cast(t, dropout(t, probabilities) if m.attention_dropout else probabilities, values.dtype)
    values = values if layout.v else copy(t, values, values.shape)
    out = batched_matmul(t, weights, values, (batch, heads, length, m.value_dim), length)
    return copy(t, out, out.shape), weights
