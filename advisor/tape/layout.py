"""Operations that cut, join, copy and repeat: they compute nothing, but some make tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.tape.graph import BackwardFunction, ManyNode, Node, Output, Shape, Tensor
from advisor.tape.tape import Tape


def alias(t: Tape, inputs: tuple[Tensor, ...], backward: BackwardFunction, shape: Shape = ()) -> Tensor:
    """An operation whose output is the memory of its first input, in its shape unless another is given."""
    x = inputs[0]
    out = Tensor(shape or x.shape, x.dtype, x.buffer)
    if t.grad_enabled and any(i.needs_grad for i in inputs):
        out.node, out.needs_grad = Node(t, inputs, backward), True
    return out


def slice_last(t: Tape, x: Tensor, size: int) -> Tensor:
    """`x[..., :size]`: a view; indexing with the whole width is a no-op."""
    shape = x.shape
    if size == shape[-1]:
        return x
    return part(t, x, (*shape[:-1], size))


def slice_rows(t: Tape, x: Tensor, rows: int) -> Tensor:
    """`x[:, -rows:]` of x (B, S, H): the same along the tokens."""
    return part(t, x, (x.shape[0], rows, x.shape[2]))


def part(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """A part of x of that shape, as a view; its backward copies into a full tensor of zeros."""
    full, dtype = x.shape, x.dtype
    out = Tensor(shape, dtype, x.buffer)
    if x.needs_grad and t.grad_enabled:

        def backward(g: Tensor) -> tuple[Tensor]:
            zeros = t.empty(full, dtype)
            t.kernel("elementwise", dtype, 0, zeros.bytes)
            t.kernel("elementwise", dtype, 0, 2 * g.bytes)
            return (zeros,)

        hollow = t.op((x,), (0,), dtype, backward)
        out.node, out.needs_grad = hollow.node, True
    return out


def pick_last(t: Tape, x: Tensor, size: int) -> Tensor:
    """`x[..., [i]]`, as wide as `size`: a copy; its backward writes into zeros.

    A trace with a dispatch mode writes into a second tensor, PyTorch itself in place.
    """
    shape, dtype = x.shape, x.dtype
    picked = (*shape[:-1], size)
    index = t.empty((1,), "int64")
    t.kernel("gather", dtype, 0, 2 * prod(picked) * ITEM_BYTES[dtype])

    def backward(g: Tensor) -> tuple[Tensor]:
        zeros = t.empty(shape, dtype)
        t.kernel("gather", dtype, 0, zeros.bytes + 2 * g.bytes)
        return (t.empty(shape, dtype) if t.device == "cpu" else zeros,)

    return t.op((x,), picked, dtype, backward, (index,))


def chunk_last(t: Tape, x: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """`x.split(sizes, dim=-1)`: views; their gradients are joined by one `cat`."""
    shape, dtype = x.shape, x.dtype
    outs = [Tensor((*shape[:-1], size), dtype, x.buffer) for size in sizes]
    if not (x.needs_grad and t.grad_enabled):
        return outs
    parts: list[Tensor | None] = [None] * len(sizes)

    def backward(g: Tensor) -> tuple[Tensor]:
        filled = [p or t.empty((*shape[:-1], s), dtype) for p, s in zip(parts, sizes, strict=True)]
        joined = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, 2 * joined.bytes)
        filled.clear()
        parts[:] = [None] * len(sizes)
        return (joined,)

    node = ManyNode(t, (x,), backward)
    node.parts = parts
    for index, out in enumerate(outs):
        out.node, out.needs_grad = Output(node, index), True
    return outs


def split_heads(t: Tape, x: Tensor) -> list[Tensor]:
    """`x.split(1, dim=1)` of x (B, heads, S, D): views, whose gradients one `cat` joins."""
    batch, heads, length, width = x.shape
    parts = chunk_last(t, t.view(x, (batch, length, heads * width)), (width,) * heads)
    for part in parts:
        part.shape = (batch, 1, length, width)
    return parts


def join_heads(t: Tape, parts: list[Tensor]) -> Tensor:
    """`cat(parts, dim=1)` of (B, 1, S, D) each: (B, heads, S, D); backward hands out views."""
    batch, _, length, width = part = parts[0].shape
    dtype, heads = parts[0].dtype, len(parts)
    t.kernel("elementwise", dtype, 0, 2 * heads * parts[0].bytes)
    return t.op(
        tuple(parts), (batch, heads, length, width), dtype, lambda g: (Tensor(part, g.dtype, g.buffer),) * heads
    )


def cut_first(t: Tape, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """`x.split(sizes)`: views; their gradients are joined by one `cat`."""
    inner = x.shape[1:]
    parts = chunk_last(t, t.view(x, (x.count,)), tuple(size * prod(inner) for size in sizes))
    for part, size in zip(parts, sizes, strict=True):
        part.shape = (size, *inner)
    return parts


def join_first(t: Tape, parts: Sequence[Tensor]) -> Tensor:
    """`cat(parts)`; its backward hands out views."""
    dtype, inner, shapes = parts[0].dtype, parts[0].shape[1:], [part.shape for part in parts]
    t.kernel("elementwise", dtype, 0, 2 * sum(part.bytes for part in parts))
    shape = (sum(part.shape[0] for part in parts), *inner)
    return t.op(tuple(parts), shape, dtype, lambda g: tuple(Tensor(one, g.dtype, g.buffer) for one in shapes))


def cat_last(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`cat((a, b), dim=-1)`; its backward hands out views."""
    split, dtype = (a.shape, b.shape), a.dtype
    shape = (*a.shape[:-1], a.shape[-1] + b.shape[-1])
    t.kernel("elementwise", dtype, 0, 2 * (a.bytes + b.bytes))
    return t.op(
        (a, b), shape, dtype, lambda g: (Tensor(split[0], g.dtype, g.buffer), Tensor(split[1], g.dtype, g.buffer))
    )


def copy(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """`clone`, or `contiguous`/`reshape` where the layout forces a copy; backward passes the gradient on."""
    t.kernel("elementwise", x.dtype, 0, 2 * x.bytes)
    before = x.shape
    return t.op((x,), shape, x.dtype, lambda g: (Tensor(before, g.dtype, g.buffer),))


def regathered(t: Tape, x: Tensor) -> Tensor:
    """x as it is; its gradient comes in another layout and is copied."""
    shape = x.shape

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        return (t.empty(shape, g.dtype),)

    return alias(t, (x,), backward)


def repeat_kv(t: Tape, x: Tensor, repeats: int, copied: bool = True) -> Tensor:
    """Keys or values (B, KV, S, D) repeated for every query head: (B, KV * repeats, S, D).

    `copied` is off where the layout allows a view that reads the same memory over and over.
    """
    if repeats == 1:
        return x
    batch, heads, length, width = x.shape
    before, shape = x.shape, (batch, heads * repeats, length, width)

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(before, g.dtype)
        t.kernel("reduce", g.dtype, 0, g.bytes + out.bytes)
        return (out,)

    if not copied:
        out = alias(t, (x,), backward)
        out.shape = shape
        return out
    t.kernel("elementwise", x.dtype, 0, x.bytes * (1 + repeats))
    return t.op((x,), shape, x.dtype, backward)
