"""The operations of a decoder's step: what each allocates, keeps for backward, moves and computes.

One function per operation, named as PyTorch names it. Shapes are tuples, sizes in elements; the last axis of a
hidden state is its width. Sources: PyTorch 2.13, tools/autograd/derivatives.yaml and FunctionsManual.cpp for what
is saved and made; unless stated otherwise, a kernel moves its inputs and outputs once.
"""

from __future__ import annotations

from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.tape.graph import Shape, Tensor
from advisor.tape.layout import alias
from advisor.tape.tape import Tape


def promoted(a: str, b: str) -> str:
    """The dtype of an operation on two floating-point tensors."""
    return a if a == b else "float32"


def cast(t: Tape, x: Tensor, dtype: str) -> Tensor:
    """`x.to(dtype)`: the same tensor when it has that dtype already."""
    if x.dtype == dtype:
        return x
    t.kernel("elementwise", dtype, 0, x.bytes + x.count * ITEM_BYTES[dtype])
    before, shape = x.dtype, x.shape

    def backward(g: Tensor) -> tuple[Tensor]:
        if g.dtype == before:
            return (g,)
        t.kernel("elementwise", before, 0, g.bytes + g.count * ITEM_BYTES[before])
        return (t.empty(shape, before),)

    return t.op((x,), x.shape, dtype, backward)


def unary(t: Tape, x: Tensor, keep: str, name: str = "elementwise", backward_temporaries: int = 0) -> Tensor:
    """An elementwise function of one tensor: `keep` is 'input', 'output' or 'nothing'.

    Backward makes `backward_temporaries` tensors of the same size, one after the other, beside its result.
    """
    shape, dtype = x.shape, x.dtype
    size = x.bytes
    t.kernel(name, dtype, 0, 2 * size)

    def backward(g: Tensor) -> tuple[Tensor]:
        scratch = []
        for _ in range(backward_temporaries):
            t.kernel(name, dtype, 0, 2 * size)
            scratch.append(t.empty(shape, dtype))
        out = t.empty(shape, promoted(g.dtype, dtype))
        t.kernel(name, g.dtype, 0, g.bytes + out.bytes + (size if keep != "nothing" else 0))
        scratch.clear()
        return (out,)

    saved = (x,) if keep == "input" else ()
    return t.op((x,), shape, dtype, backward, saved, keep_output=keep == "output")


def scale(t: Tape, x: Tensor) -> Tensor:
    """A tensor times or over a Python number, which PyTorch does not hand to saved-tensor hooks."""
    return unary(t, x, "nothing")


def shift(t: Tape, x: Tensor) -> Tensor:
    """A tensor plus a Python number."""
    t.kernel("elementwise", x.dtype, 0, 2 * x.bytes)
    return t.op((x,), x.shape, x.dtype, lambda g: (g,))


def negate(t: Tape, x: Tensor) -> Tensor:
    """`-x`."""
    return unary(t, x, "nothing")


def add(t: Tape, a: Tensor, b: Tensor, kind: str = "elementwise") -> Tensor:
    """`a + b`, broadcasting `b`; both gradients are the one that came in."""
    dtype = a.dtype if a.dtype == b.dtype else "float32"
    out_bytes = a.count * ITEM_BYTES[dtype]
    t.kernel(kind, dtype, 0, a.bytes + b.bytes + out_bytes)
    a_needs, b_needs = a.needs_grad, b.needs_grad
    return t.op((a, b), a.shape, dtype, lambda g: (g if a_needs else None, g if b_needs else None))


def add_in_place(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`a += b`: the memory of `a`."""
    t.kernel("elementwise", a.dtype, 0, 2 * a.bytes + b.bytes)
    a_needs, b_needs = a.needs_grad, b.needs_grad
    return alias(t, (a, b), lambda g: (g if a_needs else None, g if b_needs else None))


def scale_in_place(t: Tape, x: Tensor) -> Tensor:
    """A tensor times or over a Python number, in its own memory."""
    shape = x.shape
    t.kernel("elementwise", x.dtype, 0, 2 * x.bytes)
    return alias(t, (x,), lambda g: (t.empty(shape, g.dtype),))


def subtract(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`a - b`, broadcasting `b`; the gradient of `b` is made at full size and then reduced."""
    shape, dtype, a_needs, b_needs = a.shape, promoted(a.dtype, b.dtype), a.needs_grad, b.needs_grad
    t.kernel("elementwise", dtype, 0, a.bytes + b.bytes + a.count * ITEM_BYTES[dtype])

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if b_needs:
            t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        return (g if a_needs else None), (t.empty(shape, g.dtype) if b_needs else None)

    return t.op((a, b), shape, dtype, backward)


def mul(t: Tape, a: Tensor, b: Tensor, shape: Shape = ()) -> Tensor:
    """`a * b`, broadcasting the smaller, or both to `shape`; gradients are made at full size and then reduced."""
    shape = shape or (a.shape if len(a.shape) > len(b.shape) or a.count >= b.count else b.shape)
    dtype = a.dtype if a.dtype == b.dtype else "float32"
    a_bytes, b_bytes = a.bytes, b.bytes
    t.kernel("elementwise", dtype, 0, a_bytes + b_bytes + prod(shape) * ITEM_BYTES[dtype])
    a_needs, b_needs, a_dtype, b_dtype = a.needs_grad, b.needs_grad, a.dtype, b.dtype

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        ga = gb = None
        if a_needs:
            ga = t.empty(shape, promoted(g.dtype, b_dtype))
            t.kernel("elementwise", g.dtype, 0, g.bytes + b_bytes + ga.bytes)
        if b_needs:
            gb = t.empty(shape, promoted(g.dtype, a_dtype))
            t.kernel("elementwise", g.dtype, 0, g.bytes + a_bytes + gb.bytes)
        return ga, gb

    saved = ((b,) if a_needs else ()) + ((a,) if b_needs else ())
    return t.op((a, b), shape, dtype, backward, saved)


def masked_fill(t: Tape, x: Tensor, mask: Tensor) -> Tensor:
    """`x.masked_fill(mask, value)`: keeps the mask."""
    shape, dtype = x.shape, x.dtype
    moved = 2 * x.bytes + mask.bytes
    t.kernel("elementwise", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", g.dtype, 0, moved)
        return (t.empty(shape, g.dtype),)

    return t.op((x,), shape, dtype, backward, (mask,))


def mean_last(t: Tape, x: Tensor) -> Tensor:
    """Mean over the last axis, kept as size 1."""
    return mean(t, x, (*x.shape[:-1], 1))


def mean(t: Tape, x: Tensor, out_shape: Shape) -> Tensor:
    """Mean over the axes that `out_shape` lacks; backward spreads the gradient over a full tensor."""
    shape, dtype = x.shape, x.dtype
    t.kernel("reduce", dtype, 0, x.bytes + prod(out_shape) * ITEM_BYTES[dtype])

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, g.bytes + out.bytes)
        return (out,)

    return t.op((x,), out_shape, dtype, backward)


def dropout(t: Tape, x: Tensor) -> Tensor:
    """`F.dropout` in training: CUDA keeps a bool mask, the CPU a noise tensor of x's dtype."""
    shape, dtype = x.shape, x.dtype
    if t.device == "cpu":
        noise = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, noise.bytes)
        t.kernel("elementwise", dtype, 0, 2 * noise.bytes)
        return mul(t, x, noise)
    mask = t.empty(shape, "bool")
    t.kernel("elementwise", dtype, 0, 2 * x.bytes + mask.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 2 * g.bytes + g.count)
        return (t.empty(shape, g.dtype),)

    return t.op((x,), shape, dtype, backward, (mask,))


def embedding(t: Tape, weight: Tensor, batch: int, length: int, ids: tuple[Tensor, ...] = ()) -> Tensor:
    """Rows of `weight` (V, H) for token ids (B, S): (B, S, H); a trained weight gets a dense gradient.

    `ids` is given where their memory is not counted elsewhere.
    """
    vocabulary, width = weight.shape
    dtype = weight.dtype
    index_bytes = batch * length * ITEM_BYTES["int64"]
    t.kernel("gather", dtype, 0, 2 * batch * length * width * ITEM_BYTES[dtype] + index_bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty((vocabulary, width), g.dtype)
        t.kernel("elementwise", dtype, 0, out.bytes)
        t.kernel("gather", dtype, 0, 2 * g.bytes + index_bytes)
        return (out,)

    return t.op((weight,), (batch, length, width), dtype, backward, ids)


def softmax(t: Tape, x: Tensor, dtype: str) -> Tensor:
    """`softmax(x, dim=-1, dtype=dtype)`: keeps its output; only CUDA's fp16 is cast inside the kernel.

    Source: PyTorch 2.13, aten/src/ATen/native/SoftMax.cpp.
    """
    inner = cast(t, x, dtype) if t.device == "cpu" or x.dtype != "float16" else x
    shape, before = inner.shape, inner.dtype
    t.kernel("reduce", dtype, 0, inner.bytes + inner.count * ITEM_BYTES[dtype])

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("reduce", before, 0, 3 * g.bytes)
        return (t.empty(shape, before),)

    return t.op((inner,), shape, dtype, backward, keep_output=True)


def batched_matmul(t: Tape, a: Tensor, b: Tensor, shape: Shape, inner: int, autocast: bool = True) -> Tensor:
    """`a @ b` over leading axes: output `shape` = (..., M, N), `inner` = K. Keeps both when both need gradients.

    `autocast` is off inside operations that autocast has handled as a whole.
    """
    if t.autocast and autocast:
        a, b = cast(t, a, t.autocast), cast(t, b, t.autocast)
    dtype = a.dtype
    rows, columns = shape[-2], shape[-1]
    batch = 1
    for size in shape[:-2]:
        batch *= size
    moved = a.bytes + b.bytes + batch * rows * columns * ITEM_BYTES[dtype]
    t.matmul(dtype, rows, columns, inner, moved, batch)
    a_shape, b_shape, a_needs, b_needs = a.shape, b.shape, a.needs_grad, b.needs_grad

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        ga = gb = None
        if a_needs:
            t.matmul(dtype, rows, inner, columns, moved, batch)
            ga = t.empty(a_shape, dtype)
        if b_needs:
            t.matmul(dtype, inner, columns, rows, moved, batch)
            gb = t.empty(b_shape, dtype)
        return ga, gb

    saved = ((a,) if b_needs else ()) + ((b,) if a_needs else ())
    return t.op((a, b), shape, dtype, backward, saved)
