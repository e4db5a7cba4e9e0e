"""Phi's mixture: a router that draws its two experts one after the other, after noise on its input (SparseMixer).

Source: transformers 5.23, models/phimoe/modeling_phimoe.py, `PhimoeSparseMoeBlock`, `PhimoeTopKRouter`, `sparsemixer`.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.decoders.experts import Experts, mixed
from advisor.decoders.gpt_oss import collected
from advisor.decoders.linear import Linear, product
from advisor.specs import ModelSpec
from advisor.tape.graph import Node, Tensor
from advisor.tape.layout import alias, cat_last
from advisor.tape.tape import Tape


def phi_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    shape = x.shape
    if m.router_jitter:
        x = _jittered(t, x, seen_through_view=False)
    rows = t.view(x, (shape[0] * shape[1], shape[2]))
    if m.router_jitter:
        rows = _jittered(t, rows, seen_through_view=True)
    t.label("router")
    _logits = collected(t, product(t, rows, w.weights["router"]), w.logits)
    scores, _indices = _mixed_sparsely(t, _logits)
    return t.view(mixed(t, rows, scores, m, w), shape)


def _jittered(t: Tape, x: Tensor, seen_through_view: bool) -> Tensor:
    """`x *= noise`, which autograd keeps; through a view its backward copies the gradient and clones the slice."""
    shape, dtype = x.shape, x.dtype
    noise = t.empty(shape, dtype)
    t.kernel("elementwise", dtype, 0, noise.bytes)
    t.kernel("elementwise", dtype, 0, 3 * x.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        whole = [t.empty(shape, g.dtype), t.empty(shape, g.dtype)] if seen_through_view else []
        for moved in (3, *(2,) * (3 if seen_through_view else 0)):  # the product; into a copy, out of it, and back
            t.kernel("elementwise", g.dtype, 0, moved * g.bytes)
        out = t.empty(shape, g.dtype)
        return (whole[0] if whole else out,)

    out = alias(t, (x,), backward)
    if isinstance(out.node, Node):
        t.save(out.node, (noise,))
    return out


def _mixed_sparsely(t: Tape, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and indices (T, 2) of two experts drawn from scores (T, E), the second from those that the first left.

    No gradient comes back through what is drawn, only to the scores themselves.
    """
    first, index = _drawn(t, scores, scores)
    t.kernel("gather", scores.dtype, 0, 2 * scores.bytes)
    left = t.empty(scores.shape, scores.dtype)
    second, other = _drawn(t, scores, left)
    both = t.empty((scores.shape[0], 2), "int64")
    t.kernel("elementwise", "int64", 0, 2 * both.bytes)
    del index, other
    return cat_last(t, first, second), both


def _drawn(t: Tape, scores: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (T, 1) and index (T, 1) of one expert among `left` (T, E)."""
    shape, dtype = left.shape, left.dtype
    one = (shape[0], 1)
    wide, narrow, flags = left.bytes, left.bytes // shape[1], left.count
    mask = t.empty(shape, "bool")
    t.kernel("reduce", dtype, 0, wide + narrow + 8 * shape[0])
    # how far behind the best each is: magnitude, clamped, difference, ratio, whether it is too far, without those
    for moved in (2 * wide, 2 * wide + narrow, 2 * wide + narrow, 3 * wide, wide + flags, 2 * wide + flags):
        t.kernel("elementwise", dtype, 0, moved)
    masked = t.empty(shape, dtype)
    for moved in (2 * wide, 2 * wide, 3 * wide):  # noise, its logarithm, subtracted
        t.kernel("elementwise", dtype, 0, moved)
    index = t.empty(one, "int64")
    t.kernel("reduce", dtype, 0, wide + narrow + index.bytes)
    gates = t.empty(shape, dtype)
    t.kernel("reduce", dtype, 0, 2 * wide)
    del masked
    t.kernel("gather", dtype, 0, 2 * narrow + index.bytes)
    t.kernel("reduce", dtype, 0, wide + narrow + index.bytes)
    for _ in range(6):  # whether it is the best, or a draw says so, as a number
        t.kernel("elementwise", dtype, 0, 2 * narrow + shape[0])
    weight = t.empty(one, dtype)
    return _multiplied(t, scores, (weight, index, gates, mask)), index


def _multiplied(t: Tape, scores: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
    """`PhimoeMultiplier`: a weight (T, 1) whose gradient goes to the scores (T, E); it keeps what drew it."""
    weight, _, gates, _ = kept
    shape, one, dtype = gates.shape, weight.shape, gates.dtype
    t.kernel("elementwise", dtype, 0, 3 * weight.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        scratch = [t.empty(one, dtype), t.empty(one, dtype)]
        for moved in (3 * scratch[0].bytes, 2 * scratch[0].bytes):
            t.kernel("elementwise", dtype, 0, moved)
        out = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, 2 * out.bytes + scratch[0].bytes)
        t.kernel("gather", dtype, 0, 3 * scratch[0].bytes + 8 * shape[0])
        scratch.clear()
        return (out,)

    return t.op((scores,), one, dtype, backward, kept)
