"""OFT: the input of a linear layer is turned by orthogonal blocks before the layer reads it.

Mirrors peft 0.21, tuners/oft/layer.py (OFTRotationModule.forward, _cayley_batch with five Neumann terms).
"""

from __future__ import annotations

from advisor.parameters.rotations import BLOCK
from advisor.tape.graph import Tensor
from advisor.tape.layout import alias, copy, regathered
from advisor.tape.ops import batched_matmul, cast
from advisor.tape.tape import Tape


def rotated(t: Tape, x: Tensor, vectors: Tensor) -> Tensor:
    """x (B, S, I), in the dtype of `vectors` (I / 32, 496), with every 32 features turned by their block.

    einsum lays the blocks side by side and lays the result out again: a copy there and, in backward, one back.
    """
    blocks = _orthogonal(t, vectors)
    batch, length, _ = x.shape
    shape = (vectors.shape[0], batch * length, BLOCK)
    turned = batched_matmul(t, t.view(regathered(t, x), shape), blocks, shape, BLOCK)
    out = copy(t, turned, x.shape)
    return cast(t, out, x.dtype)


def _orthogonal(t: Tape, vectors: Tensor) -> Tensor:
    """I + 2 (Q + Q^2 + Q^3) + Q^4 of the skew matrices Q that the vectors hold: (I / 32, 32, 32)."""
    skew = _skew(t, vectors)
    eye = t.empty((BLOCK, BLOCK), vectors.dtype)
    t.kernel("elementwise", eye.dtype, 0, eye.bytes)
    out = t.empty(skew.shape, vectors.dtype)
    t.kernel("elementwise", out.dtype, 0, out.bytes)
    del eye
    out = _plus(t, out, skew)
    square = batched_matmul(t, skew, skew, skew.shape, BLOCK)
    out = _plus(t, out, square)
    power = batched_matmul(t, square, skew, skew.shape, BLOCK)
    out = _plus(t, out, power)
    power = batched_matmul(t, power, skew, skew.shape, BLOCK)
    return _plus(t, out, power, doubled=False)


def _skew(t: Tape, vectors: Tensor) -> Tensor:
    """Zeros with the vectors in their upper halves, minus their transpose."""
    blocks, elements = shape = vectors.shape
    dtype = vectors.dtype
    matrix = t.empty((blocks, BLOCK, BLOCK), dtype)
    t.kernel("elementwise", dtype, 0, matrix.bytes)
    t.kernel("gather", dtype, 0, 2 * vectors.bytes + 16 * elements)

    def picked(g: Tensor) -> tuple[None, Tensor]:
        t.kernel("gather", g.dtype, 0, 2 * vectors.bytes + 16 * elements)
        return None, t.empty(shape, g.dtype)

    matrix = alias(t, (matrix, vectors), picked)
    size, full = matrix.bytes, matrix.shape
    t.kernel("elementwise", dtype, 0, 3 * size)

    def both(g: Tensor) -> tuple[Tensor]:
        negative = t.empty(full, g.dtype)
        t.kernel("elementwise", g.dtype, 0, 2 * size)
        out = t.empty(full, g.dtype)
        t.kernel("elementwise", g.dtype, 0, 3 * size)
        del negative
        return (out,)

    return t.op((matrix,), full, dtype, both)


def _plus(t: Tape, a: Tensor, b: Tensor, doubled: bool = True) -> Tensor:
    """`a.add_(b, alpha=2)`, or `a.add_(b)`."""
    a_needs, shape = a.needs_grad, b.shape
    t.kernel("elementwise", a.dtype, 0, 2 * a.bytes + b.bytes)

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor]:
        if not doubled:
            return (g if a_needs else None), g
        t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        return (g if a_needs else None), t.empty(shape, g.dtype)

    return alias(t, (a, b), backward)
