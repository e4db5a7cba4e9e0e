"""Liger's fused routed experts as an operation of the tape.

Source: liger-kernel 0.8.5, ops/fused_moe.py, LigerFusedMoEFunction; transformers/swiglu.py, LigerExperts.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.blocks import ITEM_BYTES
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


def fused_experts(
    t: Tape, x: Tensor, scores: Tensor, m: ModelSpec, top_k: int, weight: Callable[[str], Tensor]
) -> Tensor:
    """The chosen experts of x (T, H), summed by their scores (T, K): (T, H), in the dtype of x.

    Keeps x, gate and up of every chosen row (T K, 2 I) and four numbers a row. Backward makes the gradients of all
    experts' weights, zeros first, whether they train or not: two tensors as large as the weights of the layer.
    Ignores: counts of rows by tile of the routing, some kilobytes.
    """
    tokens, width = x.shape
    inner, count, dtype = m.expert_size, tokens * top_k, x.dtype
    item = ITEM_BYTES[dtype]
    chosen = t.empty((count,), "float32")  # the experts' numbers in 32 bits
    gate_up, down = weight("gate_up"), weight("down")
    places = [t.empty((count,), "float32") for _ in range(3)]
    t.kernel("gather", "float32", 0, 5 * chosen.bytes)
    before = t.empty((count, 2 * inner), dtype)
    after = t.empty((count, inner), dtype)
    t.matmul(dtype, count, 2 * inner, width, item * count * (width + 3 * inner) + gate_up.bytes)
    rows = t.empty((count, width), dtype)
    t.matmul(dtype, count, width, inner, item * count * (width + inner) + down.bytes)
    out = t.empty((tokens, width), dtype)
    t.kernel("reduce", dtype, 0, rows.bytes + out.bytes + scores.bytes)
    shape, score_shape = x.shape, scores.shape
    up_shape, down_shape = Tensor(gate_up.shape, gate_up.dtype), Tensor(down.shape, down.dtype)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        d_before, weighted = t.empty((count, 2 * inner), g.dtype), t.empty((count, inner), g.dtype)
        d_scores = t.empty(score_shape, g.dtype)
        t.matmul(g.dtype, count, inner, width, item * count * (width + 5 * inner) + down_shape.bytes)
        d_down = t.empty(down_shape.shape, down_shape.dtype)
        t.kernel("elementwise", dtype, 0, d_down.bytes)
        t.matmul(g.dtype, width, inner, count, item * count * (width + inner) + d_down.bytes)
        spread = t.empty((count, width), g.dtype)
        t.matmul(g.dtype, count, width, 2 * inner, item * count * (width + 2 * inner) + up_shape.bytes)
        dx = t.empty(shape, g.dtype)
        t.kernel("elementwise", dtype, 0, dx.bytes)
        t.kernel("reduce", dtype, 0, spread.bytes + dx.bytes)
        d_up = t.empty(up_shape.shape, up_shape.dtype)
        t.kernel("elementwise", dtype, 0, d_up.bytes)
        t.matmul(g.dtype, 2 * inner, width, count, item * count * (width + 2 * inner) + d_up.bytes)
        del weighted, spread, d_before
        return dx, d_scores, d_up, d_down

    kept = (x, gate_up, down, before, scores, *places)
    del after, rows, places, chosen
    return t.function(out, (x, scores, gate_up, down), backward, kept)
