"""Attention as separate operations: PyTorch's own composition of products, and eager model code."""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.decoders.fused import mask_numbers
from advisor.decoders.step_inputs import LayerInputs
from advisor.specs import ModelSpec
from advisor.tape.graph import Shape, Tensor
from advisor.tape.layout import copy, regathered, repeat_kv
from advisor.tape.ops import add, add_in_place, batched_matmul, cast, dropout, scale, scale_in_place, softmax, unary
from advisor.tape.tape import Tape


class Layout(NamedTuple):
    """Which of q, k and v a batched product reads in place: those stored head by head, or with a single row.

    `grouped`: `enable_gqa` is set.
    """

    q: bool
    k: bool
    v: bool
    grouped: bool
    single_row: bool


def _causal_numbers(t: Tape, length: int) -> Tensor:
    """The causal mask (S, S) that the composed attention makes in every layer: bool, its triangle, fp32."""
    ones = t.empty((length, length), "bool")
    triangle = t.empty((length, length), "bool")
    out_bytes = 4 * length * length
    for moved in (ones.bytes, 2 * ones.bytes, 4, 4, ones.bytes + out_bytes):
        t.kernel("elementwise", "float32", 0, moved)
    del ones
    out = t.empty((length, length), "float32")
    del triangle
    return out


def composed_attention(
    t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, drops: bool, layout: Layout, causal: bool = True
) -> Tensor:
    """PyTorch's own composition of fp32 products, where no fused kernel applies: (B, H, S, D), head-major.

    It is used on a CPU for dropout, on a card where every kernel refuses the call (advisor.decoders.sdpa), and
    everywhere for one key head without `enable_gqa` (Falcon 7B).
    What is not stored head by head is copied for a batched product.
    Source: PyTorch 2.13, aten/src/ATen/native/transformers/attention.cpp, _scaled_dot_product_attention_math.
    """
    if t.autocast:
        q, k, v = cast(t, q, t.autocast), cast(t, k, t.autocast), cast(t, v, t.autocast)
        if mask is not None and mask.dtype != "bool":
            mask = cast(t, mask, t.autocast)
    batch, heads, length, _ = q.shape
    before, groups, arguments = q.dtype, heads // k.shape[1], (q, k, v)
    square = (batch, heads, length, k.shape[2])
    if mask is not None:
        mask = mask_numbers(t, mask, batch, before)
    q, k, v = cast(t, q, "float32"), cast(t, k, "float32"), cast(t, v, "float32")
    query = scale(t, q)
    if mask is None and causal:
        mask = _causal_numbers(t, length)
    keys, values = k, v
    if layout.grouped and groups > 1:
        keys, values = repeat_kv(t, k, groups), repeat_kv(t, v, groups)
        layout = layout._replace(k=True, v=True)
    weights = scores_of(t, query, scale(t, keys), square, layout, autocast=False)
    if mask is not None:
        weights = add(t, weights, mask) if t.device == "cpu" else add_in_place(t, weights, mask)
    weights = softmax(t, weights, "float32") if t.device == "cpu" else _safe_softmax(t, weights)
    if drops:
        weights = dropout(t, weights)
    returned = cast(t, weights, before)  # a second output, which the caller drops
    if values.shape[1] != heads:
        values = repeat_kv(t, values, groups, copied=not layout.single_row)
    elif not layout.v:
        values = copy(t, values, values.shape)
    shape = (*q.shape[:-1], v.shape[-1])
    summed = _gathered(t, batched_matmul(t, weights, values, shape, length, autocast=False), layout)
    del values  # the product alone held a copy
    out = cast(t, summed, before)
    del returned, arguments
    return out


def _safe_softmax(t: Tape, x: Tensor) -> Tensor:
    """`_safe_softmax`: rows that are masked as a whole become zeros, for which it makes all weights a second time.

    A dispatch mode on the CPU sees one operation. Source: PyTorch, attention.cpp.
    """
    shape, dtype = x.shape, x.dtype
    first = t.empty(shape, dtype)
    t.kernel("reduce", dtype, 0, x.bytes + first.bytes)
    masked = t.empty(shape, "bool")
    rows = t.empty((*shape[:-1], 1), "bool")
    t.kernel("elementwise", dtype, 0, x.bytes + masked.bytes)
    t.kernel("reduce", "bool", 0, masked.bytes + rows.bytes)
    t.kernel("elementwise", dtype, 0, 2 * first.bytes + rows.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("reduce", dtype, 0, 3 * g.bytes)
        return (t.empty(shape, dtype),)

    return t.op((x,), shape, dtype, backward, keep_output=True)


def scores_of(t: Tape, query: Tensor, keys: Tensor, square: Shape, layout: Layout, autocast: bool = True) -> Tensor:
    """Queries times keys: (B, H, S, S)."""
    if t.autocast and autocast:
        query, keys = cast(t, query, t.autocast), cast(t, keys, t.autocast)
    first = query if layout.q else copy(t, query, query.shape)
    if keys.shape[1] != square[1]:
        second = repeat_kv(t, keys, square[1] // keys.shape[1], copied=not layout.single_row)
    else:
        second = keys if layout.k else copy(t, keys, keys.shape)
    return batched_matmul(t, first, second, square, query.shape[-1], autocast)


def weighted_sum(t: Tape, weights: Tensor, values: Tensor, layout: Layout) -> Tensor:
    """Weights (B, H, S, S) times values (B, H, S, D). Autocast casts the values as stored, then they are copied."""
    if t.autocast:
        values = cast(t, values, t.autocast)
    stacked = values if layout.v else copy(t, values, values.shape)
    return batched_matmul(t, weights, stacked, values.shape, values.shape[2])


def _gathered(t: Tape, x: Tensor, layout: Layout) -> Tensor:
    """A batched product under its four-dimensional shape; its gradient comes token by token and is copied."""
    return x if layout.single_row else regathered(t, x)


def model_repeat_kv(t: Tape, m: ModelSpec, x: Tensor) -> Tensor:
    """transformers' `repeat_kv`: keys or values for every query head; of a single head it makes a view."""
    return repeat_kv(t, x, m.num_attention_heads // x.shape[1], copied=m.num_key_value_heads > 1)


def eager_attention(
    t: Tape, q: Tensor, k: Tensor, v: Tensor, m: ModelSpec, mask: Tensor | None, drops: bool, layout: Layout
) -> tuple[Tensor, Tensor]:
    """`eager_attention_forward` of the model code: (B, H, S, D), token by token, and the weights (B, H, S, S)."""
    keys, values = model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)
    batch, heads, length, _ = q.shape
    if 1 < m.num_key_value_heads < heads:
        layout = layout._replace(k=True, v=True)
    weights = scale(t, scores_of(t, q, keys, (batch, heads, length, k.shape[2]), layout))
    if m.attention_softcap:
        weights = scale(t, weights)
        weights = unary(t, weights, "output")
        weights = scale(t, weights)
    if mask is not None:
        weights = add(t, weights, mask)
    dtype = architecture_of(m.architecture).eager_softmax
    wide = dtype == "float" or (t.autocast and t.device == "cuda")  # CUDA's autocast makes every softmax fp32
    weights = softmax(t, weights, "float32" if wide else weights.dtype)
    if dtype != "given_uncast":
        weights = cast(t, weights, v.dtype)
    if drops:
        weights = dropout(t, weights)
    out = weighted_sum(t, weights, values, layout)
    return copy(t, out, out.shape), weights


def falcon_attention(
    t: Tape, q: Tensor, k: Tensor, v: Tensor, given: LayerInputs, dtype: str, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Falcon's eager attention: (B, H, S, D), token by token, and the weights (B, H, S, S) in hidden states' `dtype`.

    With ALiBi the scores are biased in fp32, and every intermediate keeps a name.
    """
    heads, length = q.shape[1], q.shape[2]
    scores = scores_of(t, q, k, (q.shape[0], heads, length, length), layout)
    if given.alibi is None:
        biased = scale_in_place(t, scores)
    else:
        wide = cast(t, scores, "float32")
        biased = scale_in_place(t, add(t, wide, given.alibi))
    weights = softmax(t, add(t, biased, given.mask) if given.mask is not None else biased, dtype)
    if given.alibi is None:
        del scores, biased
    values = v
    if v.shape[1] != heads:
        values = repeat_kv(t, v, heads, copied=not layout.single_row)
    elif not layout.v:
        values = copy(t, v, v.shape)
    out = batched_matmul(t, weights, values, q.shape, length)
    return copy(t, out, out.shape), weights
