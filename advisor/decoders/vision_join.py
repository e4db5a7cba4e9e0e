"""Tokens of images among those of text: put in the place of their marks, and added to the first layers' output."""

from __future__ import annotations

from advisor.tape.graph import Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import add
from advisor.tape.tape import Tape


def scattered(t: Tape, x: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
    """`x.masked_scatter(mask, tokens)`: x (B, S, H), mask (B, S, 1), tokens (F, H) -> (B, S, H). Keeps the mask.

    CUDA spreads the mask over all of x, and counts it up in 64 bits. Source: PyTorch 2.13,
    aten/src/ATen/native/cuda/IndexKernel.cpp, masked_scatter__cuda.
    """
    shape, dtype, size, width = x.shape, x.dtype, x.bytes, tokens.shape
    scratch = [t.empty(shape, "bool"), t.empty(shape, "int64")] if t.device == "cuda" else []
    if scratch:
        t.kernel("elementwise", "bool", 0, scratch[0].bytes)
        t.kernel("elementwise", "int64", 0, scratch[0].bytes + scratch[1].bytes)
    t.kernel("elementwise", dtype, 0, 2 * size)
    t.kernel("gather", dtype, 0, size + 2 * tokens.bytes)
    x_needs, tokens_need = x.needs_grad, tokens.needs_grad

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gx = gt = None
        if x_needs:
            t.kernel("elementwise", dtype, 0, 2 * g.bytes)
            gx = t.empty(shape, g.dtype)
        if tokens_need:
            gt = t.empty(width, g.dtype)
            t.kernel("gather", dtype, 0, g.bytes + gt.bytes)
        return gx, gt

    out = t.op((x, tokens), shape, dtype, backward, (mask,))
    scratch.clear()
    return out


def stacked_on(t: Tape, x: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
    """x (B, S, H) with `tokens` (F, H) added where the mask is.

    Source: transformers 5.23, models/qwen3_vl/modeling_qwen3_vl.py, _deepstack_process.
    """
    cloned = copy(t, x, x.shape)
    local = add(t, picked_places(t, cloned, mask, tokens.shape), tokens)
    return _put(t, cloned, mask, local)


def picked_places(t: Tape, x: Tensor, mask: Tensor, picked: tuple[int, ...]) -> Tensor:
    """`x[mask, :]`: a copy; its gradient is written into zeros. Keeps the mask."""
    shape, dtype = x.shape, x.dtype
    _places = t.empty((2, picked[0]), "int64")  # row and column of each, made of the mask
    t.kernel("gather", dtype, 0, 2 * picked[0] * picked[1] * x.bytes // x.count)

    def backward(g: Tensor) -> tuple[Tensor]:
        zeros = t.empty(shape, g.dtype)
        t.kernel("elementwise", g.dtype, 0, zeros.bytes)
        t.kernel("gather", g.dtype, 0, 2 * g.bytes)
        return (t.empty(shape, g.dtype) if t.device == "cpu" else zeros,)

    return t.op((x,), picked, dtype, backward, (mask,))


def _put(t: Tape, x: Tensor, mask: Tensor, values: Tensor) -> Tensor:
    """`x[mask, :] = values`, in place."""
    dtype, picked, shape = x.dtype, values.shape, x.shape
    _places = t.empty((2, picked[0]), "int64")
    t.kernel("gather", dtype, 0, 2 * values.bytes)
    x_needs, values_need = x.needs_grad, values.needs_grad

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gx = gv = None
        if x_needs:
            t.kernel("elementwise", dtype, 0, 2 * g.bytes)
            gx = t.empty(shape, g.dtype)
        if values_need:
            t.kernel("gather", dtype, 0, g.bytes)
            gv = t.empty(picked, g.dtype)
        return gx, gv

    hollow = t.op((x, values), (0,), dtype, backward, (mask,))
    out = Tensor(shape, dtype, x.buffer)
    out.node, out.needs_grad = hollow.node, hollow.needs_grad
    return out
