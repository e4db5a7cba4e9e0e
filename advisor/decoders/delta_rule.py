"""The gated delta rule as transformers computes it without flash-linear-attention: in fp32, chunk after chunk.

Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py, `torch_chunk_gated_delta_rule` (the same in
qwen3_next and olmo_hybrid); locals live as long as they do there.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.decoders.norms import inverse_root
from advisor.decoders.step_inputs import Chunks
from advisor.tape.graph import Shape, Tensor
from advisor.tape.layout import copy, part, regathered, repeat_kv
from advisor.tape.loops import looped
from advisor.tape.ops import add, batched_matmul, cast, masked_fill, mul, scale, subtract, unary
from advisor.tape.pieces import cumulated, difference, padded, placed, solved, summed_last
from advisor.tape.tape import Tape


class RuleInputs(NamedTuple):
    """Queries and keys (B, HK, S, K), values (B, HV, S, V); decay and beta (B, HV, S)."""

    query: Tensor
    key: Tensor
    value: Tensor
    decay: Tensor
    beta: Tensor


Live = dict[str, Tensor]
"""The locals of the rule's function: a name that is bound anew lets go of what it had."""


def chunked_delta_rule(t: Tape, given: RuleInputs, chunks: Chunks) -> Tensor:
    """(B, HV, S, V) in the dtype of the queries."""
    dtype, (batch, heads, length, width) = given.query.dtype, given.value.shape
    strided = dtype == "float32" and not chunks.pads  # neither cast nor padded: stored token by token
    live = _cut_into_chunks(t, given, chunks)
    _solve_within(t, live, strided)
    state, out = (t.empty(s, "float32") for s in ((batch, heads, live["key"].shape[-1], width), live["values"].shape))
    for zeros in (state, out):
        t.kernel("elementwise", "float32", 0, zeros.bytes)
    states, outs = [state], [out]
    del state, out, zeros
    _decay_once(t, live)
    out, _kept = _scanned(t, live, states, outs, strided and given.key.shape[1] < heads)
    out = copy(t, out, (batch, heads, chunks.length, width))
    if chunks.pads:
        out = part(t, out, (batch, heads, length, width))
    if dtype == "float32":  # nothing to cast: the norm that follows copies what is stored head by head
        return copy(t, out, out.shape)
    return cast(t, out, dtype)


def _cut_into_chunks(t: Tape, given: RuleInputs, chunks: Chunks) -> Live:
    """Everything in fp32, for every value head, padded, times beta, and cut into chunks (B, HV, N, C, ...)."""
    query, key, value, beta, decay = _in_fp32(t, given)
    query = l2_norm(t, query)
    key = l2_norm(t, key)
    query = scale(t, query)
    rows = (*value.shape[:2], chunks.length)
    query, key, value = (padded(t, x, (*rows, x.shape[-1]), chunks.pads) for x in (query, key, value))
    beta, decay = (padded(t, x, rows, chunks.pads) for x in (beta, decay))
    v_beta = mul(t, value, t.view(beta, (*rows, 1)))
    k_beta = mul(t, key, t.view(beta, (*rows, 1)))
    cut = (*rows[:2], chunks.count, chunks.size)
    query, key = (t.view(x, (*cut, x.shape[-1])) for x in (query, key))
    k_beta, v_beta = (t.view(regathered(t, x), (*cut, x.shape[-1])) for x in (k_beta, v_beta))
    decay = t.view(decay, cut)
    live = {"query": query, "key": key, "value": value, "beta": beta, "decay": decay}
    return live | {"k_beta": k_beta, "v_beta": v_beta, "mask": _upper_mask(t, chunks.size)}


def _solve_within(t: Tape, live: Live, strided: bool) -> None:
    """What a chunk needs of itself alone: attention inside it, and the values and keys that solve its system."""
    summed = live["summed"] = cumulated(t, live["decay"])
    *before, size = cut = summed.shape
    square, width = (*cut, size), live["key"].shape[-1]
    live["pairwise"] = difference(t, t.view(summed, (*cut, 1)), t.view(summed, (*before, 1, size)), square)
    live["pairwise"] = masked_fill(t, live["pairwise"], live["mask"])
    live["pairwise"] = unary(t, live["pairwise"], "output")
    for name, of in (("system", "k_beta"), ("inner", "query")):
        products = [_product(t, live[of], live["key"], square, width, strided, strided)]
        live[name] = mul(t, products.pop(), live["pairwise"])
    live["k_decayed"] = mul(t, live["k_beta"], _grown(t, summed))
    live["values"] = solved(t, live["system"], live["v_beta"])
    live["keys_decayed"] = solved(t, live["system"], live["k_decayed"])


def _decay_once(t: Tape, live: Live) -> None:
    """Queries, keys and states with the decay from a chunk's beginning, to its end, and over all of it."""
    summed = live["summed"]
    *before, _ = cut = summed.shape
    live["query"] = mul(t, live["query"], _grown(t, summed))
    last = part(t, summed, (*before, 1))
    live["key"] = mul(t, live["key"], t.view(unary(t, difference(t, last, summed, cut), "output"), (*cut, 1)))
    live["by_chunk"] = t.view(unary(t, part(t, summed, (*before,)), "output"), (*before, 1, 1))


def _in_fp32(t: Tape, given: RuleInputs) -> list[Tensor]:
    """Queries, keys, values, beta and decay, in fp32, with queries and keys for every value head."""
    query, key, value, decay, beta = given
    groups = value.shape[1] // key.shape[1]
    query, key = repeat_kv(t, query, groups), repeat_kv(t, key, groups)
    return [cast(t, x, "float32") for x in (query, key, value, beta, decay)]


def l2_norm(t: Tape, x: Tensor) -> Tensor:
    """x / sqrt(sum(x^2) + eps) over the last axis, operation by operation."""
    squares = [mul(t, x, x)]  # popped: no operand outlives its operation
    inverse = inverse_root(t, summed_last(t, squares.pop()))
    return mul(t, x, inverse)


def _upper_mask(t: Tape, size: int) -> Tensor:
    ones = t.empty((size, size), "bool")
    t.kernel("elementwise", "bool", 0, ones.bytes)
    t.kernel("elementwise", "bool", 0, 2 * ones.bytes)
    return t.empty((size, size), "bool")


def _product(
    t: Tape, a: Tensor, b: Tensor, shape: Shape, inner: int, copies_a: bool = False, copies_b: bool = False
) -> Tensor:
    """A batched product, which copies what is not stored head by head."""
    first, second = (copy(t, x, x.shape) if copies else x for x, copies in ((a, copies_a), (b, copies_b)))
    return batched_matmul(t, first, second, shape, inner)


def _grown(t: Tape, summed: Tensor) -> Tensor:
    """`summed.exp().unsqueeze(-1)`."""
    return t.view(unary(t, summed, "output"), (*summed.shape, 1))


def _scanned(
    t: Tape, live: Live, states: list[Tensor], outs: list[Tensor], strided: bool
) -> tuple[Tensor, list[Tensor]]:
    """The chunks one after the other, each with the state (B, HV, K, V) that those before left.

    `states` and `outs` hold the first state and the zeros that outputs are written into: both are let go of here.
    `strided`: queries and keys of all heads are stored token by token.
    Returns what keeps its name, too: the last chunk's values and what it read of the state.
    """
    batch, heads, count, size, value_width = live["values"].shape
    width = live["key"].shape[-1]
    wide, tall, square = (batch, heads, size, width), (batch, heads, size, value_width), (batch, heads, size, size)
    kept: list[Tensor] = []

    def turn(state: Tensor) -> Tensor:
        value = part(t, live["values"], tall)
        predicted = [batched_matmul(t, part(t, live["keys_decayed"], wide), state, tall, width)]
        fresh = _minus(t, value, predicted)
        kept[:1] = [fresh]
        read = _product(t, part(t, live["query"], wide), state, tall, width, strided)
        kept[1:] = [read]
        inside = [batched_matmul(t, part(t, live["inner"], square), fresh, tall, size)]
        outs[0] = placed(t, outs[0], add(t, read, inside.pop()))
        older = mul(t, state, part(t, live["by_chunk"], (batch, heads, 1, 1)))
        newer = _product(t, part(t, live["key"], wide), fresh, state.shape, size, strided)
        return add(t, older, newer)

    looped(t, count, states.pop(), turn)
    return outs.pop(), kept


def _minus(t: Tape, value: Tensor, predicted: list[Tensor]) -> Tensor:
    """Values minus the product that the list holds, in fp32."""
    return subtract(t, value, predicted.pop())
