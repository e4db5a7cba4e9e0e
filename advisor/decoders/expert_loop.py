"""Mixtures of experts before transformers 5: linear layers of each expert, in a loop over the experts.

T tokens, K experts per token, E experts, n rows of one expert: T * K / E, for every expert is taken to be picked as
often as the others. Each gathers its tokens, and adds its weighted rows to the sum in place.

Sources: transformers 4.45, 4.50 and 4.57, models/{mixtral,qwen2_moe,qwen3_moe,olmoe}/modeling_*.py (`forward` of
...SparseMoeBlock), models/{deepseek_v3,dots1,glm4_moe}/modeling_*.py (`moe`).
Ignores: that the loop waits for the card at each expert, to learn how many rows it has.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.architectures import architecture_of
from advisor.decoders.adapters import linear
from advisor.decoders.deepseek import deepseek_v3_routed
from advisor.decoders.experts import Experts, gated, normalized, shared_expert
from advisor.decoders.gpt_oss import best, picked_rows
from advisor.decoders.linear import Linear
from advisor.parameters.modules import expert_linear
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, cast, mul, softmax, unary
from advisor.tape.program import SHARE
from advisor.tape.tape import Tape


def shared_loop(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, and after them the shared one, behind its gate, if any."""
    batch, length, width = x.shape
    rows = t.view(x, (batch * length, width))
    _logits = linear(t, rows, linears[m.router_linear])
    t.label("router")
    scores, _chosen = best(t, softmax(t, _logits, "float32"), w.top_k)
    if m.router_normalized:
        scores = normalized(t, scores)
    scores = cast(t, scores, x.dtype)
    total = t.empty(rows.shape, x.dtype)
    _mask = _one_hot(t, batch * length * w.top_k, m.num_experts)
    for index in range(m.num_experts):
        layers = _expert(m, index, linears)
        place = _places(t, batch * length * w.top_k)
        state = picked_rows(t, rows, SHARE, place)
        out = gated(t, state, m.activation, *layers)
        out = mul(t, out, _picked(t, scores, place))
        t.label("experts")
        total = _added(t, total, cast(t, out, x.dtype), place)
    if not m.shared_expert_size:
        return t.view(total, x.shape)
    shared = shared_expert(t, rows, m, linears)
    shared = mul(t, shared, unary(t, linear(t, rows, linears["shared_expert_gate"]), "output"))
    return t.view(add(t, total, shared), x.shape)


def deepseek_v3_loop(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, summed in fp32, then the shared one."""
    batch, length, width = x.shape
    rows = t.view(x, (batch * length, width))
    _logits, scores, _chosen = deepseek_v3_routed(t, rows, m, w)
    del _logits
    out = t.view(_deepseek_v3_sum(t, rows, scores, m, w, linears), x.shape)
    return add(t, out, shared_expert(t, x, m, linears))


def _deepseek_v3_sum(
    t: Tape, rows: Tensor, scores: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]
) -> Tensor:
    total = t.empty(rows.shape, scores.dtype)
    chosen = rows.shape[0] * w.top_k
    _mask = _one_hot(t, chosen, m.num_experts)
    for index in range(m.num_experts):
        layers = _expert(m, index, linears)
        place = _places(t, chosen)
        share = _picked(t, scores, place)
        state = picked_rows(t, rows, SHARE, place)
        out = gated(t, state, m.activation, *layers)
        weighted = mul(t, out, share)
        t.label("experts")
        total = _added(t, total, weighted, place)
    return cast(t, total, rows.dtype)


def _expert(m: ModelSpec, index: int, linears: Mapping[str, Linear]) -> list[Linear]:
    return [linears[expert_linear(index, name)] for name in architecture_of(m.architecture).expert_names]


def _one_hot(t: Tape, chosen: int, experts: int) -> Tensor:
    """`one_hot(selected_experts, E)`: zeros, into which ones are scattered."""
    t.label("experts")
    mask = t.empty((chosen, experts), "int64")
    t.kernel("elementwise", "int64", 0, mask.bytes)
    t.kernel("gather", "int64", 0, 16 * chosen)
    return mask


def _places(t: Tape, chosen: int) -> Tensor:
    """`torch.where` of one expert's row of the mask: token and rank of each of its rows (n, 2)."""
    t.label("experts")
    row = t.empty((chosen,), "int64")
    t.kernel("elementwise", "int64", 0, 2 * row.bytes)
    t.kernel("reduce", "int64", 0, row.bytes)
    return t.empty((SHARE, 2), "int64")


def _picked(t: Tape, scores: Tensor, place: Tensor) -> Tensor:
    """The scores (n, 1) of one expert's rows."""
    t.label("experts")
    return picked_rows(t, t.view(scores, (scores.count, 1)), SHARE, place)


def _added(t: Tape, total: Tensor, rows: Tensor, place: Tensor) -> Tensor:
    """`total.index_add_(0, tokens, rows)`: in place; keeps tokens and rows. The gradient of `rows` is gathered."""
    shape, dtype = rows.shape, rows.dtype
    moved = 3 * rows.bytes + place.bytes
    t.kernel("gather", dtype, 0, moved)
    total_needs = total.needs_grad

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor]:
        t.kernel("gather", g.dtype, 0, moved)
        return (g if total_needs else None), t.empty(shape, g.dtype)

    hollow = t.op((total, rows), (0,), dtype, backward, (place, rows))
    out = Tensor(total.shape, total.dtype, total.buffer)
    out.node, out.needs_grad = hollow.node, hollow.needs_grad
    return out


LOOPS = {"shared": shared_loop, "wide_sum": deepseek_v3_loop}
"""By `Architecture.expert_loop`."""
