"""DeepSeek's mixture: scores in fp32, experts picked by groups, and an expert that all tokens share.

Source: transformers 5.23, models/deepseek_v2 and models/deepseek_v3, modeling_*.py: `...TopkRouter`, `...MoE`.

Ignores: the groups' own scores and masks, some tens of bytes a token and expert that are gone before the experts run.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.decoders.experts import Experts, adapted_router, mixed, normalised, shared_expert
from advisor.decoders.gpt_oss import best
from advisor.decoders.linear import Linear, product
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, cast, scale, softmax, unary
from advisor.tape.tape import Tape


def deepseek_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, then the shared one."""
    batch, length, width = x.shape
    rows = t.view(x, (batch * length, width))
    _logits, scores, _indices = _routed(t, rows, m, w)
    out = t.view(mixed(t, rows, scores, m, w), x.shape)
    return add(t, out, shared_expert(t, x, m, linears))


def _routed(t: Tape, x: Tensor, m: ModelSpec, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H), and scores and indices (T, K) of the best experts."""
    t.label("router")
    logits = product(t, cast(t, x, "float32"), cast(t, adapted_router(t, w), "float32"))
    if m.architecture == "deepseek_v2":
        top, indices = best(t, softmax(t, logits, "float32"), w.top_k)
        return logits, scale(t, top), indices
    scores = unary(t, logits, "output")
    _note_groups(t, scores)
    top, indices = best(t, scores, w.top_k)
    if m.router_normalised:
        top = normalised(t, top)
    return logits, scale(t, top), indices


def _note_groups(t: Tape, scores: Tensor) -> None:
    """The kernels that pick the best groups of experts and mask the others: on scores (T, E) and on the few groups."""
    wide, flags, rows = scores.bytes, scores.count, 8 * scores.shape[0]
    t.kernel("elementwise", "float32", 0, 2 * wide)  # balanced
    for moved in (wide + rows, 2 * rows, 2 * rows, rows, rows):  # best two of a group, their sum, best groups, flags
        t.kernel("reduce", "float32", 0, moved)
    for moved in (wide, wide + flags, 2 * flags, 2 * wide + flags):  # spread over experts, as bools, negated, filled in
        t.kernel("elementwise", "float32", 0, moved)
    t.kernel("gather", "float32", 0, 3 * rows)
