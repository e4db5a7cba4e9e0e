"""Operations on parts of a tensor and along one axis of it: cut into chunks, padded, written piece by piece, summed.

Sources: PyTorch 2.13, tools/autograd/derivatives.yaml, FunctionsManual.cpp, and
torch/csrc/autograd/functions/tensor.cpp (CopySlices::apply).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.tape.graph import Shape, Tensor
from advisor.tape.layout import alias
from advisor.tape.ops import cast, unary
from advisor.tape.tape import Tape


def made(t: Tape, shape: Shape, dtype: str, kind: str = "elementwise", passes: int = 2) -> Tensor:
    """A tensor that a function written in Python makes of one or more of its size, outside of the graph."""
    out = t.empty(shape, dtype)
    t.kernel(kind, dtype, 0, passes * out.bytes)
    return out


def placed(t: Tape, into: Tensor, value: Tensor) -> Tensor:
    """`into[...] = value`: backward copies the whole gradient, takes out the piece, and leaves zeros in its place."""
    shape, dtype, into_needs = value.shape, value.dtype, into.needs_grad
    size = value.count * ITEM_BYTES[into.dtype]
    t.kernel("elementwise", into.dtype, 0, value.bytes + size)

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor]:
        rest = t.empty(g.shape, g.dtype)
        t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        piece = t.empty(shape, g.dtype)
        t.kernel("elementwise", g.dtype, 0, 2 * size)
        if into_needs:
            zeros = t.empty(shape, g.dtype)
            t.kernel("elementwise", g.dtype, 0, size)
            t.kernel("elementwise", g.dtype, 0, 2 * size)
            del zeros
        return (rest if into_needs else None), cast(t, piece, dtype)

    return alias(t, (into, value), backward)


def softplus(t: Tape, x: Tensor) -> Tensor:
    """`F.softplus`; CUDA's autocast takes it in fp32."""
    return unary(t, cast(t, x, "float32") if t.autocast and t.device == "cuda" else x, "input")


def stacked(t: Tape, parts: Sequence[Tensor], shape: Shape) -> Tensor:
    """`torch.stack(parts)` of more or fewer tensors than are there: backward hands out views of one gradient."""
    like, dtype = parts[0].shape, parts[0].dtype
    out_bytes = prod(shape) * ITEM_BYTES[dtype]
    t.kernel("elementwise", dtype, 0, 2 * out_bytes)

    def backward(g: Tensor) -> tuple[Tensor, ...]:
        return tuple(Tensor(like, g.dtype, g.buffer) for _ in range(count))

    count = len(parts)
    return t.op(tuple(parts), shape, dtype, backward)


def padded(t: Tape, x: Tensor, shape: Shape, pads: bool) -> Tensor:
    """`F.pad` at an axis' end to `shape`: a copy even where there is nothing to add; backward copies what was there."""
    before, dtype = x.shape, x.dtype
    out_bytes = prod(shape) * ITEM_BYTES[dtype]
    if pads:
        t.kernel("elementwise", dtype, 0, out_bytes)
    t.kernel("elementwise", dtype, 0, 2 * x.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(before, g.dtype)
        t.kernel("elementwise", g.dtype, 0, 2 * out.bytes)
        return (out,)

    return t.op((x,), shape, dtype, backward)


def joined_last(t: Tape, parts: Sequence[Tensor]) -> Tensor:
    """`cat(parts, dim=-1)`; its backward hands out views."""
    shapes, dtype = [one.shape for one in parts], parts[0].dtype
    size = sum(one.bytes for one in parts)
    t.kernel("elementwise", dtype, 0, 2 * size)

    def backward(g: Tensor) -> tuple[Tensor, ...]:
        return tuple(Tensor(shape, g.dtype, g.buffer) for shape in shapes)

    return t.op(tuple(parts), (*shapes[0][:-1], sum(shape[-1] for shape in shapes)), dtype, backward)


def summed_last(t: Tape, x: Tensor) -> Tensor:
    """`x.sum(-1, keepdim=True)`."""
    return summed(t, x, (*x.shape[:-1], 1))


def summed(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """`x.sum(-2)`: backward spreads its gradient without a copy."""
    before = x.shape
    t.kernel("reduce", x.dtype, 0, x.bytes + prod(shape) * ITEM_BYTES[x.dtype])

    def backward(g: Tensor) -> tuple[Tensor]:
        spread = Tensor(before, g.dtype, g.buffer)
        spread.bytes = g.bytes
        return (spread,)

    return t.op((x,), shape, x.dtype, backward)


def divided(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, broadcasting `b`: its gradient is made at full size, of three others, and then reduced."""
    shape, dtype, moved = a.shape, a.dtype, 2 * a.bytes + b.bytes
    t.kernel("elementwise", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor, Tensor]:
        ga = t.empty(shape, dtype)
        negative, ratio, again = (t.empty(shape, dtype) for _ in range(3))
        for passes in (moved, moved, moved, moved, 3 * moved // 2):
            t.kernel("elementwise", dtype, 0, passes)
        gb = t.empty(shape, dtype)
        del negative, ratio, again
        return ga, gb

    return t.op((a, b), shape, dtype, backward, (a, b))


def chosen_where(t: Tape, mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`torch.where(mask, a, b)`: keeps the mask; each gradient is chosen from it or zero."""
    shape, dtype, moved = a.shape, a.dtype, a.bytes + b.bytes + mask.bytes
    t.kernel("elementwise", dtype, 0, moved + a.bytes)

    def backward(g: Tensor) -> tuple[Tensor, Tensor]:
        found = t.empty(shape, dtype), t.empty(shape, dtype)
        for _ in found:
            t.kernel("elementwise", dtype, 0, 4)
            t.kernel("elementwise", dtype, 0, moved)
        return found

    return t.op((a, b), shape, dtype, backward, (mask,))


def cumulated(t: Tape, x: Tensor) -> Tensor:
    """`x.cumsum(-1)`: backward turns the gradient around, sums it up and turns it back."""
    shape, dtype, moved = x.shape, x.dtype, 2 * x.bytes
    t.kernel("reduce", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        turned = t.empty(shape, dtype)
        summed = t.empty(shape, dtype)
        del turned
        out = t.empty(shape, dtype)
        for kind in ("elementwise", "reduce", "elementwise"):
            t.kernel(kind, dtype, 0, moved)
        del summed
        return (out,)

    return t.op((x,), shape, dtype, backward)


def difference(t: Tape, a: Tensor, b: Tensor, shape: Shape) -> Tensor:
    """`a - b`, both broadcast to `shape`: the gradient of b is made at full size and then reduced."""
    dtype, a_needs, b_needs = a.dtype, a.needs_grad, b.needs_grad
    t.kernel("elementwise", dtype, 0, a.bytes + b.bytes + prod(shape) * ITEM_BYTES[dtype])

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if b_needs:
            t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        return (g if a_needs else None), (t.empty(shape, g.dtype) if b_needs else None)

    return t.op((a, b), shape, dtype, backward)


def solved(t: Tape, system: Tensor, right: Tensor) -> Tensor:
    """`linalg.solve_triangular(system, right)`: system (..., C, C), right (..., C, N) -> (..., C, N).

    Keeps the system and the result. Counted as a product of half the depth, which is its FLOP.
    """
    *batched, size, columns = shape = right.shape
    dtype, square, batch = right.dtype, system.shape, prod(batched)
    system_needs, right_needs = system.needs_grad, right.needs_grad
    moved, square_bytes = system.bytes + 2 * right.bytes, system.bytes
    t.matmul(dtype, size, columns, size // 2, moved, batch)

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        t.matmul(dtype, size, columns, size // 2, moved, batch)
        solution = t.empty(shape, dtype)
        if not system_needs:
            return None, solution
        t.matmul(dtype, size, size, columns, moved, batch)
        product = t.empty(square, dtype)
        negative = t.empty(square, dtype)
        del product
        out = t.empty(square, dtype)
        for _ in range(2):  # minus, and its lower triangle
            t.kernel("elementwise", dtype, 0, 2 * square_bytes)
        del negative
        return out, (solution if right_needs else None)

    node_inputs = (system, right)
    saved = (system,) if system_needs or right_needs else ()
    return t.op(node_inputs, shape, dtype, backward, saved, keep_output=system_needs)
