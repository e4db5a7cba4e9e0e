"""Mixtures beside an expert that all tokens share and whose output is added as it is: ERNIE, Hunyuan, Granite.

Source: transformers 5.23, models/{ernie4_5_moe,hunyuan_v1_moe,granitemoeshared}/modeling_*.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.decoders.adapters import linear
from advisor.decoders.experts import Experts, adapted_router, mixed, normalized, routed, shared_expert
from advisor.decoders.gpt_oss import best, collected
from advisor.decoders.linear import Linear, product
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, cast, softmax, unary
from advisor.tape.tape import Tape


def ernie_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the shared expert, if any, runs first."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    shared = shared_expert(t, rows, m, linears) if m.shared_expert_size else None
    _logits, scores, _indices = _ernie_routed(t, rows, w)
    out = mixed(t, rows, scores, m, w)
    if shared is not None:
        out = add(t, out, shared)
    return t.view(out, x.shape)


def _ernie_routed(t: Tape, x: Tensor, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H), and scores and indices (T, K): in fp32, outside autocast."""
    t.label("router")
    router = adapted_router(t, w)
    was_autocast, t.autocast = t.autocast, ""
    logits = collected(t, product(t, cast(t, x, "float32"), cast(t, router, "float32")), w.logits)
    probabilities = softmax(t, logits, "float32")
    _values, indices = best(t, add(t, probabilities, w.weights["router_bias"]), w.top_k)
    scores, _ = best(t, probabilities, w.top_k, indices)
    scores = divided(t, scores, _clamped_sum(t, scores))
    t.autocast = was_autocast
    return logits, cast(t, scores, x.dtype), indices


def _clamped_sum(t: Tape, x: Tensor) -> Tensor:
    """`clamp(x.sum(dim=-1, keepdim=True), min=...)`, which keeps the sum."""
    shape, dtype = x.shape, x.dtype
    t.kernel("reduce", dtype, 0, x.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, g.bytes + g.count)  # where it was not clamped, and the zero for elsewhere
        t.kernel("elementwise", dtype, 0, 0)
        return (Tensor(shape, g.dtype, g.buffer),)

    total = t.op((x,), (*shape[:-1], 1), dtype, backward)
    return unary(t, total, "input", backward_temporaries=1)


def divided(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, b broadcast: keeps both; the gradient of b is made at full size in three steps, then reduced."""
    shape, dtype, a_bytes, moved = a.shape, a.dtype, a.bytes, 2 * a.bytes + b.bytes
    t.kernel("elementwise", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor, Tensor]:
        ga = t.empty(shape, dtype)
        negative, ratio = t.empty(shape, dtype), t.empty(shape, dtype)
        ratio = t.empty(shape, dtype)
        # of a one pass; of b its sign, the ratio, divided once more, and times the gradient
        for passes in (moved, 2 * a_bytes, moved, moved, 3 * a_bytes):
            t.kernel("elementwise", dtype, 0, passes)
        gb = t.empty(shape, dtype)
        del negative, ratio
        return ga, gb

    return t.op((a, b), shape, dtype, backward, (a, b))


def hunyuan_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the shared expert runs first; the router is a linear layer."""
    shared = shared_expert(t, x, m, linears)
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    _logits, scores, _indices = _hunyuan_routed(t, rows, w, linears[m.router_linear])
    out = t.view(mixed(t, rows, scores, m, w), x.shape)
    return add(t, out, shared)


def _hunyuan_routed(t: Tape, x: Tensor, w: Experts, router: Linear) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H), and scores and indices (T, K)."""
    logits = linear(t, x if router.quant != "none" else cast(t, x, "float32"), router)
    t.label("router")
    scores, indices = best(t, softmax(t, logits, "float32"), w.top_k)
    scores = normalized(t, scores)
    return logits, cast(t, scores, logits.dtype), indices


def granite_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the shared expert, if any, runs last."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    _logits, scores, _indices = routed(t, rows, m, w)
    out = t.view(mixed(t, rows, scores, m, w), x.shape)
    del _logits, scores, _indices
    return add(t, out, shared_expert(t, x, m, linears)) if m.shared_expert_size else out
