"""Kimi's delta rule as transformers computes it without flash-linear-attention: in fp32, chunk after chunk.

Its decay is of each feature of a key, so that what a chunk's tokens are to each other has an axis of features, too.
B rows, H heads, N chunks of C tokens, keys and values of K features.

Source: transformers 5.23, models/kimi_linear/modeling_kimi_linear.py, `chunk_kimi_delta_attention` and `l2norm`; locals
live as long as they do there.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.decoders.delta_rule import Live, RuleInputs
from advisor.decoders.step_inputs import Chunks
from advisor.tape.graph import Shape, Tensor
from advisor.tape.layout import copy, part
from advisor.tape.loops import looped
from advisor.tape.ops import add, batched_matmul, cast, masked_fill, mul, negate, scale, shift, subtract, unary
from advisor.tape.pieces import cumulated, difference, divided, padded, placed, summed, summed_last
from advisor.tape.tape import Tape


def chunked_kimi_rule(t: Tape, given: RuleInputs, chunks: Chunks) -> Tensor:
    """(B, S, H, K) in the dtype of the queries, of queries, keys, values and decays (B, S, H, K), beta (B, S, H)."""
    dtype, (batch, length, heads, width) = given.query.dtype, given.value.shape
    live = _cut_into_chunks(t, given, chunks)
    _weigh_within(t, live, chunks.size)
    _solve_within(t, live, chunks.size)
    wide = (batch, heads, width, width)
    solved = live["value"].dtype  # autocast's, where it makes products
    state, out = t.empty(wide, solved), t.empty(live["value"].shape, solved)
    for zeros in (state, out):
        t.kernel("elementwise", solved, 0, zeros.bytes)
    states, outs = [state], [out]
    del state, out, zeros
    live["mask"] = _upper_mask(t, chunks.size)
    _names = _scanned(t, live, states, outs)
    out = t.view(outs.pop(), (batch, heads, chunks.length, width))
    if chunks.pads:
        out = part(t, out, (batch, heads, length, width))
    return cast(t, copy(t, out, (batch, length, heads, width)), dtype)


def _cut_into_chunks(t: Tape, given: RuleInputs, chunks: Chunks) -> Live:
    """Everything in fp32, padded, and cut into chunks (B, H, N, C, ...)."""
    by_head = [_by_head(t, x) for x in (given.query, given.key, given.value, given.beta, given.decay)]
    query, key, value, beta, decay = by_head
    del by_head
    query = _unit(t, query)
    key = _unit(t, key)
    rows = (*value.shape[:2], chunks.length)
    wide, cut = (*rows, value.shape[-1]), (*rows[:2], chunks.count, chunks.size)
    query = scale(t, padded(t, query, wide, chunks.pads))
    key, value, decay = (padded(t, x, wide, chunks.pads) for x in (key, value, decay))
    beta = padded(t, beta, rows, chunks.pads)
    v_beta = mul(t, value, t.view(beta, (*rows, 1)))
    k_beta = mul(t, key, t.view(beta, (*rows, 1)))
    live = {"query": query, "key": key, "value": value, "decay": decay, "k_beta": k_beta, "v_beta": v_beta}
    live = {name: t.view(x, (*cut, x.shape[-1])) for name, x in live.items()}
    return live | {"beta": beta}


def _by_head(t: Tape, x: Tensor) -> Tensor:
    """`x.transpose(1, 2).contiguous()` in fp32."""
    batch, length, heads, *rest = x.shape
    return cast(t, copy(t, x, (batch, heads, length, *rest)), "float32")


def _unit(t: Tape, x: Tensor) -> Tensor:
    """`x / sqrt(sum(x^2) + eps)` over the last axis."""
    squares = [mul(t, x, x)]
    root = unary(t, shift(t, summed_last(t, squares.pop())), "output", backward_temporaries=1)
    return divided(t, x, root)


def _weigh_within(t: Tape, live: Live, size: int) -> None:
    """The decay from each token of a chunk to each later one, and keys by keys under it, below the diagonal."""
    summed = live["decay"] = cumulated(t, live["decay"])
    live["mask"], live["strict"] = _upper_mask(t, size), _upper_mask(t, size)
    *before, _, width = summed.shape
    each, row, column = (*before, size, size, width), (*before, size, 1, width), (*before, 1, size, width)
    between = [difference(t, t.view(summed, row), t.view(summed, column), each)]
    between = [masked_fill(t, between.pop(), live["strict"])]
    live["decays"] = unary(t, between.pop(), "output")
    live["system"] = negate(t, _masked_scores(t, live["k_beta"], live["key"], lambda: live["decays"], live["mask"]))


def _masked_scores(t: Tape, rows: Tensor, columns: Tensor, decays: Callable[[], Tensor], mask: Tensor) -> Tensor:
    """`(rows * columns * decays).sum(-1).masked_fill(mask, 0)` of all pairs of a chunk's tokens: (..., C, C).

    The decays are taken once the pairs are there.
    """
    *before, size, width = rows.shape
    square = (*before, size, size)
    row, column = (*before, size, 1, width), (*before, 1, size, width)
    pairs = mul(t, t.view(rows, row), t.view(columns, column), (*square, width))
    decayed = [mul(t, pairs, decays())]
    del pairs
    scores = [t.view(summed_last(t, decayed.pop()), square)]
    return masked_fill(t, scores.pop(), mask)


def _solve_within(t: Tape, live: Live, size: int) -> None:
    """The system of a chunk inverted row by row in place, and what it makes of values and keys."""
    system = live.pop("system")
    *before, _, _ = square = system.shape
    for i in range(1, size):
        live["row"] = _cloned(t, part(t, part(t, system, (*before, size)), (*before, i)))
        live["sub"] = _cloned(t, part(t, part(t, system, (*before, i, size)), (*before, i, i)))
        products = [mul(t, t.view(live["row"], (*before, i, 1)), live["sub"])]
        found = [summed(t, products.pop(), (*before, i))]
        system = placed(t, system, add(t, live["row"], found.pop()))
    eye = t.empty((size, size), "float32")
    for _ in range(2):
        t.kernel("elementwise", "float32", 0, eye.bytes)
    system = add(t, system, eye)
    del eye
    live["value"] = batched_matmul(t, system, live["v_beta"], live["v_beta"].shape, size)
    decayed = [mul(t, live["k_beta"], unary(t, live["decay"], "output"))]
    live["keys_decayed"] = batched_matmul(t, system, decayed.pop(), live["key"].shape, size)
    live["system"] = system
    assert system.shape == square


def _cloned(t: Tape, x: Tensor) -> Tensor:
    return copy(t, x, x.shape)


def _upper_mask(t: Tape, size: int) -> Tensor:
    """`torch.triu(torch.ones(C, C, dtype=bool))`."""
    ones = t.empty((size, size), "bool")
    mask = t.empty((size, size), "bool")
    for passes in (1, 2):
        t.kernel("elementwise", "bool", 0, passes * ones.bytes)
    return mask


def _scanned(t: Tape, live: Live, states: list[Tensor], outs: list[Tensor]) -> Live:
    """The chunks one after the other, each with the state (B, H, K, K) that those before left.

    `states` holds the first state and lets go of it; `outs` the zeros that outputs are written into. Returns what keeps
    its name from the last chunk.
    """
    batch, heads, count, size, width = live["value"].shape
    wide, square = (batch, heads, size, width), (batch, heads, size, size)
    names: Live = {}

    def decays() -> Tensor:
        return part(t, live["decays"], (*square, width))

    def turn(state: Tensor) -> Tensor:
        query, key, value, decay = (part(t, live[of], wide) for of in ("query", "key", "value", "decay"))
        names["inter"] = batched_matmul(t, mul(t, query, unary(t, decay, "output")), state, wide, width)
        names["intra"] = _masked_scores(t, query, key, decays, live["mask"])
        names["predicted"] = batched_matmul(t, part(t, live["keys_decayed"], wide), state, wide, width)
        names["fresh"] = subtract(t, value, names["predicted"])
        inside = [batched_matmul(t, names["intra"], names["fresh"], wide, size)]
        outs[0] = placed(t, outs[0], add(t, names["inter"], inside.pop()))
        last: Shape = (batch, heads, width, 1)
        grown = t.view(unary(t, part(t, decay, (batch, heads, width)), "output"), last)
        older = mul(t, state, grown)
        del grown
        to_end = difference(t, part(t, decay, (batch, heads, 1, width)), decay, wide)
        to_end = unary(t, to_end, "output")
        decayed = mul(t, key, to_end)
        del to_end
        newer = batched_matmul(t, decayed, names["fresh"], state.shape, size)
        return add(t, older, newer)

    _state = looped(t, count, states.pop(), turn)
    return names
