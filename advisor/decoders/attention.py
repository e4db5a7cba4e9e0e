"""Attention as the kernels compute it: fused, PyTorch's own composition of products, or eager model code."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.blocks import ITEM_BYTES
from advisor.decoders.rope import Rope, rope_tables
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


class StepInputs:
    """What a model makes once per step for all its layers: positions, rotary tables and, where needed, masks.

    transformers drops a causal mask that the kernel applies by itself. A sliding window shorter than the row keeps
    its mask, eager attention keeps a numeric one for each kind of layer, and Falcon's code always makes one. MPT's
    biases are those of its longest row.
    """

    __slots__ = ("alibi", "masks", "position_ids", "ropes", "window")

    def __init__(
        self,
        t: Tape,
        m: ModelSpec,
        kind: str,
        batch: int,
        length: int,
        slides: bool,
        ids: Tensor,
        dtype: str,
        padded: bool,
    ) -> None:
        """`slides`: rows are longer than the window; `ids` are the positions, `dtype` is that of hidden states.

        `padded`: rows differ in length, so every mask is made, and for each row.
        """
        quirks = architecture_of(m.architecture)
        self.position_ids = ids if quirks.position_ids in ("shared", "by_row") else None
        self.window = m.sliding_window if slides else 0
        self.alibi: Tensor | None = None
        square = (batch, 1, length, length)
        full: Tensor | None = None
        sliding: Tensor | None = None
        if quirks.alibi == "longest_row":
            self.alibi = t.empty((m.num_attention_heads, 1, m.max_position_embeddings), "float32")
            heads, positions = 8 * m.num_attention_heads, 4 * m.max_position_embeddings
            for moved in (positions, *(heads,) * 6, self.alibi.bytes + positions):  # positions, slopes, their product
                t.kernel("elementwise", "float32", 0, moved)
            full = t.empty(square, "bool")
        elif quirks.alibi == "by_row":
            self.alibi = t.empty((batch, m.num_attention_heads, 1, length), dtype)
            full = t.empty(square, dtype)
        elif m.position == "alibi":
            self.alibi = t.empty((batch, m.num_attention_heads, 1, length), dtype)
            full = t.empty((batch, m.num_attention_heads, length, length), dtype)
        elif kind == "eager" or (kind == "sdpa" and padded):
            form = dtype if kind == "eager" else "bool"
            if not m.sliding_window or not all(m.sliding_layers or (True,)):
                full = t.empty(square, form)
            if m.sliding_window:
                sliding = t.empty(square, form)
        elif kind == "sdpa":
            full = t.empty((1, *square[1:]), "bool") if quirks.always_makes_mask else None
            rows = batch if quirks.mask_by_row else 1
            sliding = t.empty((rows, *square[1:]), "bool") if slides else None
        for mask, band in ((full, 0), (sliding, self.window)):
            if mask is not None:
                _note_mask_kernels(t, mask, batch, length, band, padded)
        self.masks = {False: full, True: sliding}
        self.ropes = rope_tables(t, m, length, dtype)

    def of(self, rotated: bool, sliding: bool) -> LayerInputs:
        """What a layer of that kind is called with; a checkpointed layer holds it until its backward."""
        return LayerInputs(
            self.masks[sliding],
            self.alibi,
            self.window if sliding else 0,
            self.ropes.get(sliding),
            rotated,
            self.position_ids,
        )


def _note_mask_kernels(t: Tape, mask: Tensor, batch: int, length: int, window: int, padded: bool) -> None:
    """What transformers' masking_utils launches for one mask: indices, comparisons, and numbers in place of bools."""
    axis, square = 8 * length, length * length
    moved = [8 * batch, 8, axis, 2 * axis, axis, 2 * axis, 2 * axis + square]
    if window:
        moved += [1, 2 * axis, 2 * axis + square, 1 + 2 * square, 3 * square]
    if padded:  # as bools, their sum against their number, picked for each key, joined with the square
        tokens = batch * length
        moved += [9 * tokens, tokens, 9, 9 * tokens, tokens + square + mask.count]
    if mask.dtype != "bool":
        moved += [2, 2, square + mask.bytes]
    for size in moved:
        t.kernel("elementwise", "int64", 0, size)


class LayerInputs(NamedTuple):
    """What one layer is called with besides its hidden states."""

    mask: Tensor | None
    alibi: Tensor | None
    window: int
    rope: Rope | None
    rotated: bool
    position_ids: Tensor | None


def _numbers(t: Tape, mask: Tensor, batch: int, dtype: str) -> Tensor:
    """A bool mask (1, 1, S, S) as numbers, row by row."""
    if mask.dtype != "bool":
        return mask
    out = t.empty((batch, *mask.shape[1:]), dtype)
    for moved in (2, 2, mask.bytes + out.bytes):  # zero, minus infinity, one of the two for each
        t.kernel("elementwise", dtype, 0, moved)
    return out


def fused_attention(t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, window: int = 0) -> Tensor:
    """Flash attention: q (B, H, S, D), k and v (B, KV, S, D) -> (B, H, S, D), causal.

    Keeps q, k, v, its output, one fp32 log-sum-exp per row, and a mask as numbers of q's dtype. `window` is 0
    unless it is shorter than the row. On CUDA backward also makes an fp32 accumulator of q's size, and gradients of
    k and v for every query head before it sums them over a group.
    """
    if t.autocast:
        q, k, v = cast(t, q, t.autocast), cast(t, k, t.autocast), cast(t, v, t.autocast)
        if mask is not None and mask.dtype != "bool":
            mask = cast(t, mask, t.autocast)
    batch, heads, length, width = q.shape
    groups = heads // k.shape[1]
    dtype, q_shape, k_shape, v_shape = q.dtype, q.shape, k.shape, v.shape
    out_shape = (*q.shape[:-1], v.shape[-1])
    row_pairs = length * (length + 1)  # twice as many as there are: causal, all under a mask, or those of a window
    if mask is not None:
        row_pairs = 2 * length * length
    elif window:
        row_pairs = 2 * length * window - window * (window - 1)
    flop = batch * heads * row_pairs * (width + out_shape[-1])
    inputs, mask_bytes = q.bytes + k.bytes + v.bytes, 0
    outputs = prod(out_shape) * ITEM_BYTES[dtype] + batch * heads * length * 4
    saved: tuple[Tensor, ...] = (q, k, v)
    if mask is not None:
        numbers = _numbers(t, mask, batch, dtype)
        saved = (*saved, numbers)
        mask_bytes = numbers.bytes
    t.kernel("attention", dtype, flop, inputs + mask_bytes + outputs)
    lse = t.empty((batch, heads, length), "float32")

    def backward(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t.kernel("attention backward", dtype, flop // 2 * 5, 2 * inputs + mask_bytes + outputs + g.bytes)
        scratch = []
        if t.device == "cuda":
            scratch = [t.empty(q_shape, "float32"), t.empty((batch, heads, length), "float32")]
            if groups > 1:
                wide = (batch, heads, length, width)
                scratch += [t.empty(wide, dtype), t.empty(wide, dtype)]
            _flash_backward_ends(t, dtype, g.bytes, q_shape, k_shape if groups > 1 else None)
        out = (t.empty(q_shape, dtype), t.empty(k_shape, dtype), t.empty(v_shape, dtype))
        scratch.clear()
        return out

    return t.op((q, k, v), out_shape, dtype, backward, (*saved, lse), keep_output=True)


def _flash_backward_ends(t: Tape, dtype: str, grad_bytes: int, q_shape: Shape, k_shape: Shape | None) -> None:
    """What runs around flash attention's backward: rows of gradient times output, and the casts of its fp32 sums.

    `k_shape` is that of keys which several heads share: their gradients are summed over each group.
    Source: PyTorch 2.13, aten/src/ATen/native/transformers/cuda/flash_attn, flash_bwd_launch_template.h, flash_api.cpp.
    """
    wide = prod(q_shape)
    t.kernel("reduce", dtype, 0, 2 * grad_bytes + 4 * wide)  # clears the accumulator as well
    t.kernel("elementwise", dtype, 0, (4 + ITEM_BYTES[dtype]) * wide)
    if k_shape is not None:
        for _ in range(2):
            t.kernel("reduce", dtype, 0, ITEM_BYTES[dtype] * (wide + prod(k_shape)))


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
    t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, drops: bool, layout: Layout
) -> Tensor:
    """PyTorch's own composition of fp32 products, where no fused kernel applies: (B, H, S, D), head-major.

    It is used on a CPU for dropout, and everywhere for one key head without `enable_gqa` (Falcon 7B).
    What is not stored head by head is copied for a batched product.
    Source: PyTorch 2.13, aten/src/ATen/native/transformers/attention.cpp, _scaled_dot_product_attention_math.
    """
    if t.autocast:
        q, k, v = cast(t, q, t.autocast), cast(t, k, t.autocast), cast(t, v, t.autocast)
        if mask is not None and mask.dtype != "bool":
            mask = cast(t, mask, t.autocast)
    batch, heads, length, _ = q.shape
    before, groups, arguments = q.dtype, heads // k.shape[1], (q, k, v)
    square = (batch, heads, length, length)
    if mask is not None:
        mask = _numbers(t, mask, batch, before)
    q, k, v = cast(t, q, "float32"), cast(t, k, "float32"), cast(t, v, "float32")
    query = scale(t, q)
    if mask is None:
        mask = _causal_numbers(t, length)
    keys, values = k, v
    if layout.grouped and groups > 1:
        keys, values = repeat_kv(t, k, groups), repeat_kv(t, v, groups)
        layout = layout._replace(k=True, v=True)
    weights = scores_of(t, query, scale(t, keys), square, layout, autocast=False)
    weights = add(t, weights, mask) if t.device == "cpu" else add_in_place(t, weights, mask)
    weights = softmax(t, weights, "float32")
    if drops:
        weights = dropout(t, weights)
    returned = cast(t, weights, before)  # a second output, which the caller drops
    if values.shape[1] != heads:
        values = repeat_kv(t, values, groups, copied=not layout.single_row)
    elif not layout.v:
        values = copy(t, values, values.shape)
    shape = (*q.shape[:-1], v.shape[-1])
    out = cast(t, _gathered(t, batched_matmul(t, weights, values, shape, length, autocast=False), layout), before)
    del returned, arguments
    return out


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
    weights = scale(t, scores_of(t, q, keys, (batch, heads, length, length), layout))
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
