"""Mixtures that score experts by a sigmoid and pick them without groups, and Mistral 4's, which has DeepSeek's groups.

Source: transformers 5.23, models/{minimax_m2,hy_v3,mistral4}/modeling_*.py: `...TopKRouter`, `...MoE`.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.decoders.deepseek import note_groups
from advisor.decoders.experts import Experts, adapted_router, mixed, normalized, shared_expert
from advisor.decoders.gpt_oss import best
from advisor.decoders.linear import Linear, product
from advisor.decoders.shared_experts import divided
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, cast, scale, shift, softmax, unary
from advisor.tape.tape import Tape


def minimax_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts alone; their scores stay in fp32."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    _logits, scores, _indices = _minimax_routed(t, rows, w)
    return t.view(mixed(t, rows, scores, m, w), x.shape)


def _minimax_routed(t: Tape, x: Tensor, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H) in the weight's dtype, and scores and indices (T, K)."""
    t.label("router")
    logits = product(t, x, adapted_router(t, w))
    scores, indices = _picked(t, unary(t, cast(t, logits, "float32"), "output"), w)
    return logits, normalized(t, scores), indices


def _picked(t: Tape, scores: Tensor, w: Experts) -> tuple[Tensor, Tensor]:
    """The scores and indices (T, K) of the experts that are best once the balancing bias is added to scores (T, E)."""
    balanced = add(t, scores, Tensor((scores.shape[-1],), "float32"))
    _values, indices = best(t, balanced, w.top_k)
    return best(t, scores, w.top_k, indices)


def hy_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, then the shared one; the sum may be in fp32."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    _logits, scores, _indices = _hy_routed(t, rows, w)
    out = mixed(t, rows, scores, m, w)
    if m.experts_summed_in_float:
        wide = [cast(t, out, "float32")]
        total = add(t, wide.pop(), cast(t, shared_expert(t, rows, m, linears), "float32"))
        return t.view(cast(t, total, x.dtype), x.shape)
    return t.view(add(t, out, shared_expert(t, rows, m, linears)), x.shape)


def _hy_routed(t: Tape, x: Tensor, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H) in fp32, and scores and indices (T, K)."""
    t.label("router")
    logits = product(t, cast(t, x, "float32"), cast(t, adapted_router(t, w), "float32"))
    scores, indices = _picked(t, unary(t, logits, "output"), w)
    scores = divided(t, scores, shift(t, row_sums(t, scores)))
    return logits, scale(t, scores), indices


def row_sums(t: Tape, x: Tensor) -> Tensor:
    """`x.sum(dim=-1, keepdim=True)`: the gradient is spread over the row as a view."""
    shape = x.shape
    t.kernel("reduce", x.dtype, 0, x.bytes + x.bytes // shape[-1])
    return t.op((x,), (*shape[:-1], 1), x.dtype, lambda g: (Tensor(shape, g.dtype, g.buffer),))


def mistral4_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, then the shared one."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    _logits, scores, _indices = _mistral4_routed(t, rows, m, w)
    out = t.view(mixed(t, rows, scores, m, w), x.shape)
    return add(t, out, shared_expert(t, x, m, linears))


def _mistral4_routed(t: Tape, x: Tensor, m: ModelSpec, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H) in the weight's dtype, and scores and indices (T, K); CUDA's autocast softmax is fp32.

    Ignores the groups' own scores and masks, as `deepseek` does.
    """
    t.label("router")
    logits = product(t, x, adapted_router(t, w))
    scores = softmax(t, logits, "float32" if t.autocast and t.device == "cuda" else logits.dtype)
    note_groups(t, scores)
    top, indices = best(t, scores, w.top_k)
    if m.router_normalised:
        top = normalized(t, top)
    return logits, scale(t, top), indices
