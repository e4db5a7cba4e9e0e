"""Mixtures of experts as transformers 5 stores and runs them: fused 3-D weights, one grouped product per projection.

A token's row is copied once for each expert that the router picks, so every size is known: T tokens, K experts per
token, T * K rows. Where peft adapts the experts, each forward makes whole adapted weights, W + B A, and makes them once
before that only to check their shape.

Sources: transformers 5.23, integrations/moe.py (`grouped_mm_experts_forward`) and the routers of
models/*/modeling_*.py; peft 0.21, tuners/lora/layer.py (`ParamWrapper`, `_LoraFactorsProxy`).
Ignores: noise on the router's input, which is off by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from advisor.decoders.adapters import linear
from advisor.decoders.dequantized import from_4_bits
from advisor.decoders.gpt_oss import best, collected, grouped_product, note_sorting, picked_rows, summed
from advisor.decoders.linear import Linear, autocast_operand, product
from advisor.decoders.mlp import activation
from advisor.libraries import libraries_of
from advisor.parameters.modules import own_parameters
from advisor.parameters.storage import experts_made, own_quant
from advisor.parameters.targets import expert_adapters
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last
from advisor.tape.ops import add, batched_matmul, cast, mul, scale, softmax, unary
from advisor.tape.tape import Tape

ExpertsCode = Callable[[Tape, Tensor, Tensor, ModelSpec, int, Callable[[str], Tensor]], Tensor]
"""(tape, x (T, H), scores (T, K), model, K, the weights by name) -> the experts' sum (T, H)."""


class Experts:
    """The weights of one layer: router (E, H), gate_up (E, 2 I, H) and down (E, H, I), each with its adapter if any."""

    __slots__ = ("adapters", "code", "decodes", "logits", "nested", "top_k", "transformers", "weights")

    def __init__(
        self,
        m: ModelSpec,
        recipe: Recipe,
        rank: int,
        weights: dict[str, Tensor],
        code: ExpertsCode | None = None,
        logits: list[Tensor] | None = None,
    ) -> None:
        """`weights` by the names of `own_parameters`; `code`: what the training stack runs in place of `mixed`.

        `logits`: where those of the router are collected, if they are.
        """
        self.code, self.logits = code, logits
        self.top_k = m.experts_per_token
        self.transformers = libraries_of(recipe.stack).transformers
        self.weights = weights
        fused = own_parameters(m).get("down")
        made = experts_made(recipe) if fused is not None and own_quant(fused, m, recipe) != "none" else "never"
        self.decodes = made == "twice"
        self.nested = recipe.double_quant if made == "once" else None
        self.adapters = {
            name: (Tensor(a, recipe.adapter_dtype, needs_grad=True), Tensor(b, recipe.adapter_dtype, needs_grad=True))
            for name, (a, b) in expert_adapters(m, recipe, rank).items()
            if name in weights  # a router that is a linear layer has its own
        }

    @property
    def adapted(self) -> list[Tensor]:
        """The adapters' tensors."""
        return [p for pair in self.adapters.values() for p in pair]


def sparse_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, and beside them the shared one, behind its gate, if any."""
    batch, length, width = x.shape
    rows = t.view(x, (batch * length, width))
    if not m.shared_expert_size:
        _logits, scores, _indices = routed(t, rows, m, w)
        return t.view(mixed(t, rows, scores, m, w), x.shape)
    shared = shared_expert(t, rows, m, linears)
    _logits, scores, _indices = routed(t, rows, m, w)
    out = mixed(t, rows, scores, m, w)
    shared = mul(t, shared, unary(t, linear(t, rows, linears["shared_expert_gate"]), "output"))
    out = add(t, out, shared)
    return t.view(out, x.shape)


def shared_expert(t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear]) -> Tensor:
    """The expert that every token of x goes through, any leading axes."""
    if len(m.mlp_names) == 2:
        joined = linear(t, x, linears[m.mlp_names[0]])
        first, second = chunk_last(t, joined, (m.shared_expert_size, m.shared_expert_size))
        return linear(t, mul(t, activation(t, m.activation, first), second), linears[m.mlp_names[1]])
    gate, up, down = (linears[name] for name in m.mlp_names)
    return gated(t, x, m.activation, gate, up, down)


def gated(t: Tape, x: Tensor, kind: str, gate: Linear, up: Linear, down: Linear) -> Tensor:
    """`down(activation(gate(x)) * up(x))`, any leading axes."""
    activated = [activation(t, kind, linear(t, x, gate))]
    return linear(t, mul(t, activated.pop(), linear(t, x, up)), down)


def adapted_router(t: Tape, w: Experts) -> Tensor:
    """The router's weight (E, H), with its adapter if it has one, which is added once before to check the shape."""
    router = w.weights["router"]
    return adapted_weight(t, router, *w.adapters["router"]) if "router" in w.adapters else router


def adapted_weight(t: Tape, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A weight (E, H) with its adapter, which is added once before to check the shape."""
    delta = _update(t, weight, a, b)
    checked = add(t, weight, delta)
    del checked
    return add(t, weight, delta)


def routed(t: Tape, x: Tensor, m: ModelSpec, w: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, E) of x (T, H), and scores and indices (T, K) of the best experts."""
    t.label("router")
    logits = product(t, x, adapted_router(t, w))
    if m.router == "best_softmax":
        logits = collected(t, cast(t, logits, "float32"), w.logits)
        top, indices = best(t, logits, w.top_k)
        return logits, cast(t, softmax(t, top, top.dtype), x.dtype), indices
    collected(t, logits, w.logits)
    probabilities = softmax(t, logits if m.router == "softmax" else cast(t, logits, "float32"), "float32")
    scores, indices = best(t, probabilities, w.top_k)
    if m.router_normalized:
        scores = normalized(t, scores)
    if m.router == "softmax":
        scores = cast(t, scores, logits.dtype)
    return logits, scores, indices


def normalized(t: Tape, x: Tensor) -> Tensor:
    """`x /= x.sum(dim=-1, keepdim=True)`: in place, for which autograd keeps a copy of x, and the sum."""
    shape, dtype, buffer = x.shape, x.dtype, x.buffer
    t.kernel("reduce", dtype, 0, x.bytes + x.bytes // shape[-1])
    total = t.op((x,), (*shape[:-1], 1), dtype, lambda g: (Tensor(shape, g.dtype, g.buffer),))
    if not (t.grad_enabled and x.needs_grad):
        return x
    before = t.empty(shape, dtype)
    moved = 2 * x.bytes
    t.kernel("elementwise", dtype, 0, moved)
    t.kernel("elementwise", dtype, 0, moved + total.bytes)
    sums = total.bytes

    def backward(g: Tensor) -> tuple[Tensor, Tensor]:
        gx = t.empty(shape, dtype)
        negative = t.empty(shape, dtype)
        ratio = t.empty(shape, dtype)
        for passes in (moved + sums, moved + sums, moved + sums, moved, 3 * moved // 2):
            t.kernel("elementwise", dtype, 0, passes)
        full = t.empty(shape, dtype)
        del negative, ratio
        t.kernel("reduce", dtype, 0, full.bytes)
        return gx, t.empty((*shape[:-1], 1), dtype)

    hollow = t.op((x, total), (0,), dtype, backward, (before, total))
    out = Tensor(shape, dtype, buffer)
    out.node, out.needs_grad = hollow.node, True
    return out


def mixed(t: Tape, x: Tensor, scores: Tensor, m: ModelSpec, w: Experts) -> Tensor:
    """The chosen experts of x (T, H), summed by their scores: (T, H), with adapted weights where there are adapters."""
    t.label("experts")
    whole = () if w.decodes else ("down", "gate_up")
    factors = {name: _factors(t, w, name) for name in whole if name in w.adapters}
    cache: dict[str, Tensor] = {}

    def weight(name: str) -> Tensor:
        found = stacked(t, w, name)
        cache[name] = _adapted(t, found, *factors[name]) if name in factors else found
        return cache[name]

    if w.code is not None:
        return w.code(t, x, scores, m, w.top_k, weight)

    def times(name: str, x: Tensor, out_features: int) -> Tensor:
        out = grouped_product(t, x, weight(name), offsets, out_features, w.decodes)
        return _with_update(t, x, out, w, name, offsets) if w.decodes and name in w.adapters else out

    tokens, width = x.shape
    experts = m.num_experts
    count = tokens * w.top_k
    order_of = t.empty((count,), "int64"), t.empty((count,), "int64")  # experts in order, the permutation
    note_sorting(t, count, experts)
    source = [t.empty((count,), "int64")]
    chosen, names = picked_rows(t, x, count, source.pop()), list[Tensor]()
    if w.transformers < (5, 5):  # picked by token, then put in the experts' order
        names.append(chosen)
        chosen = picked_rows(t, chosen, count, order_of[1])
    share = picked_rows(t, t.view(scores, (count,)), count, order_of[1])
    _histogram = t.empty((count,), "float32"), t.empty((experts,), "float32")
    offsets = t.empty((experts,), "float32")
    gate_up = times("gate_up", chosen, (1 + m.expert_gated) * m.expert_size)
    out = _gated(t, gate_up, m)
    each = w.transformers < (5, 3)  # every product has a name of its own
    names += [gate_up, out] if each else []
    del gate_up
    out = times("down", out, width)
    weighted = [mul(t, out, t.view(share, (count, 1)))]
    names += weighted if each else []
    if each:
        del out
    inverse, arange = t.empty((count,), "int64"), t.empty((count,), "int64")
    del arange
    final = picked_rows(t, weighted[0], count, inverse)
    weighted.clear()
    return cast(t, summed(t, final, (tokens, width)), x.dtype)


def _gated(t: Tape, gate_up: Tensor, m: ModelSpec) -> Tensor:
    if not m.expert_gated:
        return activation(t, m.activation, gate_up)
    gate, up = chunk_last(t, gate_up, (m.expert_size, m.expert_size))
    return mul(t, activation(t, m.activation, gate), up)


def _with_update(t: Tape, x: Tensor, out: Tensor, w: Experts, name: str, offsets: Tensor) -> Tensor:
    """LoRA beside experts in 4 bits: two grouped products (N, r) and (N, O), scaled and added to `out` (N, O).

    Source: unsloth_zoo 2026.10.9, temporary_patches/moe_utils.py, `_should_use_separated_lora`.
    """
    a, b = (cast(t, p, out.dtype) for p in w.adapters[name])
    experts = w.weights[name].shape[0]
    rank, ins, outs = a.shape[0] // experts, a.shape[1], b.shape[0]
    narrow = grouped_product(t, x, t.view(a, (experts, ins, rank)), offsets, rank)
    return add(t, out, scale(t, grouped_product(t, narrow, t.view(b, (experts, rank, outs)), offsets, outs)))


def _update(t: Tape, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`B @ A * scaling` as a weight (E, H)."""
    made = batched_matmul(t, autocast_operand(t, b), autocast_operand(t, a), weight.shape, b.shape[1])
    made = scale(t, made)
    return cast(t, made, weight.dtype)


def stacked(t: Tape, w: Experts, name: str) -> Tensor:
    """A stack of weights; of one in 4 bits that a parametrization makes in 16 bits, those: products keep them.

    Source: bitsandbytes 0.50, nn/parametrize.py, Bnb4bitParametrization and _enable_parametrization_cache.
    """
    stored = w.weights[name]
    return stored if w.nested is None else from_4_bits(t, stored.shape, stored.dtype, w.nested)


def _factors(t: Tape, w: Experts, name: str) -> tuple[Tensor, Tensor]:
    """B and A as stacks over experts, in the dtype of the weight; then the check that a parametrization makes."""
    a, b = w.adapters[name]
    weight = w.weights[name]
    found = cast(t, b, weight.dtype), cast(t, a, weight.dtype)
    checked = _adapted(t, stacked(t, w, name), *found)
    del checked
    return found


def _adapted(t: Tape, weight: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """`baddbmm(W, B, A)`: a whole weight (E, O, I)."""
    experts, outs, ins = weight.shape
    rank = b.shape[1] // experts
    dtype = weight.dtype
    moved = weight.bytes + a.bytes + b.bytes
    t.matmul(dtype, outs, ins, rank, moved + weight.bytes, experts)
    a_shape, b_shape = a.shape, b.shape

    def backward(g: Tensor) -> tuple[None, Tensor, Tensor]:
        t.matmul(dtype, outs, rank, ins, moved, experts)
        gb = t.empty(b_shape, dtype)
        scaled = _same(t, gb)
        del gb
        t.matmul(dtype, rank, ins, outs, moved, experts)
        ga = t.empty(a_shape, dtype)
        return None, scaled, _same(t, ga)

    return t.op((weight, b, a), weight.shape, dtype, backward, (b, a))


def _same(t: Tape, x: Tensor) -> Tensor:
    """A gradient times a Python number: another tensor."""
    t.kernel("elementwise", x.dtype, 0, 2 * x.bytes)
    return t.empty(x.shape, x.dtype)
