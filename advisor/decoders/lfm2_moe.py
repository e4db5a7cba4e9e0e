"""LFM2's mixture: sigmoid scores, a bias that only the choice of experts sees, no shared expert.

Source: transformers 5.23, models/lfm2_moe/modeling_lfm2_moe.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.decoders.experts import Experts, adapted_router, mixed
from advisor.decoders.gpt_oss import best
from advisor.decoders.linear import Linear, product
from advisor.decoders.shared_experts import divided
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, scale, shift, unary
from advisor.tape.tape import Tape


def lfm2_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H). `Lfm2MoeSparseMoeBlock.forward`."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    _logits, scores, _indices = _routed(t, rows, m, w)
    return t.view(mixed(t, rows, scores, m, w), x.shape)


def _routed(t: Tape, x: Tensor, m: ModelSpec, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H), and scores and indices (T, K). `Lfm2MoeTopKRouter.forward`."""
    t.label("router")
    logits = product(t, x, adapted_router(t, w))
    scores = unary(t, logits, "output")
    _balanced = add(t, scores, Tensor((m.num_experts,), "float32"))
    _values, indices = best(t, _balanced, w.top_k)
    scores, _ = best(t, scores, w.top_k, indices)
    if m.router_normalized:
        scores = divided(t, scores, shift(t, _row_sums(t, scores)))
    return logits, scale(t, scores), indices


def _row_sums(t: Tape, x: Tensor) -> Tensor:
    """`x.sum(dim=-1, keepdim=True)`; backward spreads the gradient without a copy."""
    shape, dtype = x.shape, x.dtype
    t.kernel("reduce", dtype, 0, x.bytes + x.bytes // shape[-1])
    return t.op((x,), (*shape[:-1], 1), dtype, lambda g: (Tensor(shape, g.dtype, g.buffer),))
