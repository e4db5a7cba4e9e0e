"""Mamba 2's scan in PyTorch's own operations, on all chunks of a row at once.

B rows, S tokens, C chunks of Q tokens (the last filled up with zeros), n heads of P values, a state of N. Keys and
queries are what the code calls B and C. All in fp32, with keys and queries repeated for every head. Products are of
copies where chunks or rows lie between heads; values come from the convolution channel by channel, head by head.

Source: transformers 5.23, models/granitemoehybrid/modeling_granitemoehybrid.py, `mamba2_chunk_scan`, which
models/{bamba,falcon_h1,mamba2,nemotron_h,zamba2}/modeling_*.py repeat word by word; PyTorch 2.13,
aten/src/ATen/native/Linear.cpp, `sumproduct_pair`.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.decoders.step_inputs import Chunks
from advisor.tape.graph import Shape, Tensor
from advisor.tape.layout import alias, copy, part, regathered
from advisor.tape.ops import add, batched_matmul, cast, masked_fill, mul, unary
from advisor.tape.pieces import softplus
from advisor.tape.tape import Tape


class Scanned(NamedTuple):
    """What the scan works on: values (B, S, n, P), steps (B, S, n), keys and queries (B, S, G, N)."""

    values: Tensor
    steps: Tensor
    keys: Tensor
    queries: Tensor


class Constants(NamedTuple):
    """What it has for each head: decay, weight of what skips the state, bias of its steps."""

    decay: Tensor
    skip: Tensor
    step_bias: Tensor


def chunk_scan(t: Tape, given: Scanned, learned: Constants, chunks: Chunks) -> Tensor:
    """The scan of its input: (B, S, n, P) in fp32. Names live as those of the code do."""
    x, steps, keys, queries = given
    batch, length, heads, width = x.shape
    state, count, size, rows = keys.shape[-1], chunks.count, chunks.size, chunks.length
    several, copies = count != 1, count != 1 or not chunks.one_row
    steps = add(t, steps, cast(t, learned.step_bias, steps.dtype))
    steps = softplus(t, steps)
    steps = _clamped(t, steps)
    x = cast(t, x, "float32")
    keys = _repeated(t, cast(t, keys, "float32"), heads)
    queries = _repeated(t, cast(t, queries, "float32"), heads)
    skipped = mul(t, _filled_up(t, x, rows), t.view(learned.skip, (heads, 1)))
    x = mul(t, x, cast(t, t.view(steps, (*steps.shape, 1)), "float32"))
    a = mul(t, cast(t, steps, "float32"), learned.decay)
    x, a, keys, queries = [_in_chunks(t, one, rows, several) for one in (x, a, keys, queries)]

    each = (batch, count, heads)
    summed = _cumulated(t, a)
    decays = unary(t, _segment_sum(t, a, (*each, size, size)), "output")
    scores = _contracted(t, queries, keys, (*each, size, size), state, (copies, copies))
    weights = mul(t, scores, decays)
    diagonal = _contracted(t, weights, x, (*each, size, width), size, (False, several), copies)

    decay = unary(t, _difference(t, part(t, summed, (*each, 1)), summed), "output")
    decayed = mul(t, keys, t.view(decay, (*decay.shape, 1)))
    states = _contracted(t, x, decayed, (*each, width, state), size, (several, copies), several)
    nothing = t.empty((batch, 1, heads, width, state), states.dtype)
    t.kernel("elementwise", states.dtype, 0, nothing.bytes)
    states = _behind(t, nothing, states)
    carries = (batch, heads, count + 1)
    ends = _segment_sum(t, _begun(t, part(t, summed, (batch, heads, count))), (*carries, count + 1))
    between = unary(t, ends, "output")
    del ends
    apart = not chunks.one_row
    carried = _contracted(t, between, states, (*carries, width * state), count + 1, (False, apart), apart)
    states = part(t, carried, (*each, width, state))

    decay_out = unary(t, summed, "output")
    read = _contracted(t, queries, states, (*each, size, width), state, (copies, several), copies)
    off = mul(t, read, t.view(decay_out, (*each, size, 1)))
    out = copy(t, add(t, diagonal, off), (batch, rows, heads, width))
    out = add(t, out, skipped)
    return part(t, out, (batch, length, heads, width)) if chunks.pads else out


def _clamped(t: Tape, x: Tensor) -> Tensor:
    """`torch.clamp(x, min, max)`: keeps x, of which backward makes two masks."""
    shape, dtype, moved = x.shape, x.dtype, x.bytes
    t.kernel("elementwise", dtype, 0, 2 * moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        zero = t.empty((), dtype)
        masks = t.empty(shape, "bool"), t.empty(shape, "bool")
        out = t.empty(shape, dtype)
        for passes in (0, moved + masks[0].bytes, moved + masks[1].bytes, 3 * masks[0].bytes, 2 * moved):
            t.kernel("elementwise", dtype, 0, passes)
        del zero, masks
        return (out,)

    return t.op((x,), shape, dtype, backward, (x,))


def _repeated(t: Tape, x: Tensor, heads: int) -> Tensor:
    """x (B, S, G, N) with every group repeated for each of its heads: a copy, even of one group a head."""
    shape, dtype = x.shape, x.dtype
    repeats = heads // shape[2]
    t.kernel("elementwise", dtype, 0, x.bytes * (1 + repeats))

    def backward(g: Tensor) -> tuple[Tensor]:
        if repeats == 1:
            return (g,)
        out = t.empty(shape, g.dtype)
        t.kernel("reduce", g.dtype, 0, g.bytes + out.bytes)
        return (out,)

    return t.op((x,), (*shape[:2], heads, shape[3]), dtype, backward)


def _in_chunks(t: Tape, x: Tensor, rows: int, several: bool) -> Tensor:
    """x (B, S, ...) filled up to so many rows; of a tensor of vectors the gradient comes in another layout."""
    out = _filled_up(t, x, rows)
    return regathered(t, out) if several and len(x.shape) == 4 else out


def _filled_up(t: Tape, x: Tensor, rows: int) -> Tensor:
    """`F.pad` of x (B, S, ...) to so many rows, a copy even where there is nothing to fill up."""
    shape, dtype = x.shape, x.dtype

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(shape, g.dtype)
        t.kernel("elementwise", g.dtype, 0, 2 * out.bytes)
        return (out,)

    out = t.op((x,), (shape[0], rows, *shape[2:]), dtype, backward)
    t.kernel("elementwise", dtype, 0, out.bytes)
    t.kernel("elementwise", dtype, 0, 2 * x.bytes)
    return out


def _begun(t: Tape, x: Tensor) -> Tensor:
    """`F.pad` of x (B, n, C) with one zero before all else."""
    shape, dtype = x.shape, x.dtype
    out = t.op((x,), (*shape[:-1], shape[-1] + 1), dtype, lambda g: (t.empty(shape, g.dtype),))
    t.kernel("elementwise", dtype, 0, out.bytes)
    return out


def _behind(t: Tape, first: Tensor, x: Tensor) -> Tensor:
    """`cat((first, x), dim=1)` of x (B, C, ...) and what gets no gradient; backward hands out a view."""
    before, dtype = x.shape, x.dtype
    t.kernel("elementwise", dtype, 0, 2 * (first.bytes + x.bytes))
    shape = (before[0], before[1] + 1, *before[2:])
    return t.op((x,), shape, dtype, lambda g: (Tensor(before, g.dtype, g.buffer),))


def _cumulated(t: Tape, x: Tensor) -> Tensor:
    """`cumsum` over an axis: keeps nothing; backward turns the gradient round, sums it up, and turns it back."""
    shape, dtype, moved = x.shape, x.dtype, 2 * x.bytes
    t.kernel("reduce", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        turned, total = t.empty(shape, g.dtype), t.empty(shape, g.dtype)
        out = t.empty(shape, g.dtype)
        for kind in ("elementwise", "reduce", "elementwise"):
            t.kernel(kind, g.dtype, 0, moved)
        del turned, total
        return (out,)

    return t.op((x,), shape, dtype, backward)


def _difference(t: Tape, last: Tensor, x: Tensor) -> Tensor:
    """`last - x`, the first broadcast: x's gradient is the negative one."""
    shape, dtype = x.shape, x.dtype
    t.kernel("elementwise", dtype, 0, 2 * x.bytes)

    def backward(g: Tensor) -> tuple[Tensor, Tensor]:
        t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        return g, t.empty(shape, g.dtype)

    return t.op((last, x), shape, dtype, backward)


def _segment_sum(t: Tape, x: Tensor, square: Shape) -> Tensor:
    """`segment_sum`: sums of x over every span that ends at or after its beginning, shape `square`."""
    size = square[-1]
    x = _expanded(t, x, square)
    mask = _triangle(t, size)
    x = masked_fill(t, x, _negated(t, mask))
    sums = _cumulated(t, x)
    mask = _triangle(t, size)
    return masked_fill(t, sums, _negated(t, mask))


def _expanded(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """x under a further axis that repeats it: a view, whose gradient is summed over that."""
    before = x.shape

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(before, g.dtype)
        t.kernel("reduce", g.dtype, 0, g.bytes + out.bytes)
        return (out,)

    found = alias(t, (x,), backward)
    out = Tensor(shape, x.dtype, x.buffer, found.needs_grad)
    out.node = found.node
    return out


def _triangle(t: Tape, size: int) -> Tensor:
    """`torch.tril(torch.ones(size, size))`, bool."""
    ones = t.empty((size, size), "bool")
    out = t.empty((size, size), "bool")
    for moved in (ones.bytes, 2 * ones.bytes):
        t.kernel("elementwise", "bool", 0, moved)
    del ones
    return out


def _negated(t: Tape, mask: Tensor) -> Tensor:
    """`~mask`."""
    t.kernel("elementwise", "bool", 0, 2 * mask.bytes)
    return t.empty(mask.shape, "bool")


def _contracted(
    t: Tape, a: Tensor, b: Tensor, shape: Shape, inner: int, copied: tuple[bool, bool], regathers: bool = False
) -> Tensor:
    """`einsum` of two tensors as one batched product of `shape`, summed over `inner`.

    `copied`: which of them is not stored as the product reads it; `regathers`: nor is the gradient.
    """
    first = copy(t, a, a.shape) if copied[0] else a
    second = copy(t, b, b.shape) if copied[1] else b
    out = batched_matmul(t, first, second, shape, inner)
    return regathered(t, out) if regathers else out
