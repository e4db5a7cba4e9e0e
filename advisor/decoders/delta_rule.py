"""The gated delta rule as transformers computes it without flash-linear-attention: in fp32, chunk after chunk.

Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py, `torch_chunk_gated_delta_rule` (the same in qwen3_next and
olmo_hybrid); locals live as long as they do there.
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


class _Cut(NamedTuple):
    """What the loop over chunks reads: (B, HV, N, C, ...) each, decay (B, HV, N, 1, 1)."""

    values: Tensor
    keys_decayed: Tensor
    query: Tensor
    inner: Tensor
    key: Tensor
    decay: Tensor
    strided: bool  # queries and keys are stored token by token, for all heads


def chunked_delta_rule(t: Tape, given: RuleInputs, chunks: Chunks) -> Tensor:
    """(B, HV, S, V) in the dtype of the queries."""
    dtype, (batch, heads, length, value_width) = given.query.dtype, given.value.shape
    query, key, value, beta, decay = _in_fp32(t, given)
    query = l2_norm(t, query)
    key = l2_norm(t, key)
    query = scale(t, query)
    rows = (batch, heads, chunks.length)
    query, key, value = (padded(t, x, (*rows, x.shape[-1]), chunks.pads) for x in (query, key, value))
    beta, decay = (padded(t, x, rows, chunks.pads) for x in (beta, decay))
    v_beta = mul(t, value, t.view(beta, (*rows, 1)))
    k_beta = mul(t, key, t.view(beta, (*rows, 1)))
    cut = (batch, heads, chunks.count, chunks.size)
    query, key = (t.view(x, (*cut, x.shape[-1])) for x in (query, key))
    k_beta, v_beta = (t.view(regathered(t, x), (*cut, x.shape[-1])) for x in (k_beta, v_beta))
    decay = t.view(decay, cut)
    mask = _upper_mask(t, chunks.size)
    summed = cumulated(t, decay)
    square = (*cut, chunks.size)
    pairwise = difference(t, t.view(summed, (*cut, 1)), t.view(summed, (*cut[:-1], 1, chunks.size)), square)
    pairwise = masked_fill(t, pairwise, mask)
    pairwise = unary(t, pairwise, "output")
    width = key.shape[-1]
    strided = dtype == "float32" and not chunks.pads  # neither cast nor padded: stored token by token
    system = _decayed(t, [_product(t, k_beta, key, square, width, strided, strided)], pairwise)
    inner = _decayed(t, [_product(t, query, key, square, width, strided, strided)], pairwise)
    k_decayed = mul(t, k_beta, _grown(t, summed))
    values = solved(t, system, v_beta)
    keys_decayed = solved(t, system, k_decayed)
    state, out = (t.empty(shape, "float32") for shape in ((batch, heads, width, value_width), values.shape))
    for zeros in (state, out):
        t.kernel("elementwise", "float32", 0, zeros.bytes)
    del zeros
    query = mul(t, query, _grown(t, summed))
    last = part(t, summed, (*cut[:-1], 1))
    key = mul(t, key, t.view(unary(t, difference(t, last, summed, cut), "output"), (*cut, 1)))
    by_chunk = t.view(unary(t, part(t, summed, cut[:-1]), "output"), (*cut[:-1], 1, 1))
    states, outs = [state], [out]
    del state, out
    repeated = given.key.shape[1] < heads
    cuts = _Cut(values, keys_decayed, query, inner, key, by_chunk, strided and repeated)
    out, _kept = _scanned(t, cuts, states, outs, chunks.count)
    out = copy(t, out, (*rows, value_width))
    if chunks.pads:
        out = part(t, out, (batch, heads, length, value_width))
    if dtype == "float32":  # nothing to cast: the norm that follows copies what is stored head by head
        return copy(t, out, out.shape)
    return cast(t, out, dtype)


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


def _decayed(t: Tape, products: list[Tensor], pairwise: Tensor) -> Tensor:
    return mul(t, products.pop(), pairwise)


def _product(
    t: Tape, a: Tensor, b: Tensor, shape: Shape, inner: int, copies_a: bool = False, copies_b: bool = False
) -> Tensor:
    """A batched product, which copies what is not stored head by head."""
    operands = [copy(t, x, x.shape) if copies else x for x, copies in ((a, copies_a), (b, copies_b))]
    return batched_matmul(t, *operands, shape, inner)


def _grown(t: Tape, summed: Tensor) -> Tensor:
    """`summed.exp().unsqueeze(-1)`."""
    return t.view(unary(t, summed, "output"), (*summed.shape, 1))


def _scanned(t: Tape, x: _Cut, states: list[Tensor], outs: list[Tensor], count: int) -> tuple[Tensor, list[Tensor]]:
    """The chunks one after the other, each with the state (B, HV, K, V) that those before left.

    `states` and `outs` hold the first state and the zeros that outputs are written into: both are let go of here.
    Returns what keeps its name, too: the last chunk's values and what it read of the state.
    """
    batch, heads, _, size, value_width = x.values.shape
    width = x.key.shape[-1]
    wide, tall, square = (batch, heads, size, width), (batch, heads, size, value_width), (batch, heads, size, size)
    kept: list[Tensor] = []

    def turn(state: Tensor) -> Tensor:
        value = part(t, x.values, tall)
        predicted = [batched_matmul(t, part(t, x.keys_decayed, wide), state, tall, width)]
        fresh = _minus(t, value, predicted)
        kept[:1] = [fresh]
        read = _product(t, part(t, x.query, wide), state, tall, width, x.strided)
        kept[1:] = [read]
        inside = [batched_matmul(t, part(t, x.inner, square), fresh, tall, size)]
        outs[0] = placed(t, outs[0], add(t, read, inside.pop()))
        older = mul(t, state, part(t, x.decay, (batch, heads, 1, 1)))
        newer = _product(t, part(t, x.key, wide), fresh, state.shape, size, x.strided)
        return add(t, older, newer)

    looped(t, count, states.pop(), turn)
    return outs.pop(), kept


def _minus(t: Tape, value: Tensor, predicted: list[Tensor]) -> Tensor:
    """Values minus the product that the list holds, in fp32."""
    return subtract(t, value, predicted.pop())
