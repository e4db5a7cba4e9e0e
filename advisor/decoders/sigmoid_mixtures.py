"""Mixtures that score experts by a sigmoid and pick them without groups, and Mistral 4's, which has DeepSeek's groups.

Source: transformers 5.23, models/{minimax_m2,hy_v3,afmoe,laguna,mimo_v2_flash,mistral4}/modeling_*.py: the routers
and `forward` of what holds the experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from advisor.decoders.adapters import linear
from advisor.decoders.deepseek import deepseek_v3_routed, note_groups
from advisor.decoders.experts import Experts, adapted_router, adapted_weight, mixed, normalized, shared_expert
from advisor.decoders.gpt_oss import best, collected
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
    logits = collected(t, product(t, x, adapted_router(t, w)), w.logits)
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


def afmoe_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the shared expert runs between the router, a linear layer, and the chosen ones."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    t.label("router")
    _logits = cast(t, _routing_linear(t, rows, linears[m.router_linear]), "float32")
    scores, _indices = _picked(t, unary(t, _logits, "output"), w)
    scores = divided(t, scores, shift(t, row_sums(t, scores)))
    scores = scale(t, scores)
    shared = shared_expert(t, rows, m, linears)
    out = mixed(t, rows, scores, m, w)
    return t.view(add(t, shared, out), x.shape)


def _routing_linear(t: Tape, x: Tensor, router: Linear) -> Tensor:
    """A router that is a linear layer, which peft adapts as a parameter where it is not quantized."""
    if router.lora_a is None or router.lora_b is None or router.quant != "none":
        return linear(t, x, router)
    return product(t, x, adapted_weight(t, router.weight, router.lora_a, router.lora_b))


def laguna_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the shared expert runs first; the sum of the chosen ones is scaled."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    shared = shared_expert(t, rows, m, linears)
    _logits, scores, _indices = _laguna_routed(t, rows, m, w)
    out = mixed(t, rows, scores, m, w)
    out = scale(t, out)
    return t.view(add(t, out, shared), x.shape)


def _laguna_routed(t: Tape, x: Tensor, m: ModelSpec, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H), capped where the model does, and scores and indices (T, K) in x's dtype."""
    t.label("router")
    logits = cast(t, product(t, x, adapted_router(t, w)), "float32")
    if m.router_softcap:
        logits = scale(t, unary(t, scale(t, logits), "output"))
    collected(t, logits, w.logits)
    scores, indices = _picked(t, unary(t, logits, "output"), w)
    scores = divided(t, scores, row_sums(t, scores))
    return logits, cast(t, scores, x.dtype), indices


def mimo_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): DeepSeek V3's router, and the chosen experts alone."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    _logits, scores, _indices = deepseek_v3_routed(t, rows, m, w)
    return t.view(mixed(t, rows, scores, m, w), x.shape)


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
    if m.router_normalized:
        top = normalized(t, top)
    return logits, scale(t, top), indices


SIGMOID_MIXTURES: dict[str, Callable[[Tape, Tensor, ModelSpec, Experts, Mapping[str, Linear]], Tensor]] = {
    "afmoe": afmoe_feed_forward,
    "hy_v3": hy_feed_forward,
    "laguna": laguna_feed_forward,
    "mimo": mimo_feed_forward,
    "minimax_m2": minimax_feed_forward,
    "mistral4": mistral4_feed_forward,
}
"""By `Architecture.mixture`."""
