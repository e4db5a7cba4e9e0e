"""How patches enter a vision tower: pixels in its dtype, the convolution, the gradient that checkpointing asks for."""

from __future__ import annotations

from advisor.decoders.linear import autocast_operand
from advisor.decoders.vision import Tower
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast
from advisor.tape.program import BATCH


def pixels_of(d: Tower) -> Tensor:
    """The batch's pixels in the tower's dtype, held while the tower runs."""
    pixels = Tensor((BATCH * d.v.row_pixels,), "float32")
    return cast(d.t, pixels, d.weights.tensors[0].dtype)


def embedded_patches(d: Tower, pixels: Tensor) -> Tensor:
    """A convolution whose steps are as long as its kernel: (P, H). Where it is trained, it keeps input and kernel."""
    t, weight = d.t, d.weights.tensors[0]
    t.label("patches")
    bias = d.weights.loose.get("bias")
    pixels, weight = autocast_operand(t, pixels), autocast_operand(t, weight)
    bias = autocast_operand(t, bias) if bias is not None else None
    dtype, (rows, columns), count = weight.dtype, weight.shape, d.patches
    moved = pixels.bytes + weight.bytes
    t.matmul(dtype, count, rows, columns, moved)
    inputs = (weight,) if bias is None else (weight, bias)

    def backward(g: Tensor) -> tuple[Tensor, ...]:
        t.matmul(dtype, rows, columns, count, moved)
        made = [t.empty((rows, columns), dtype)]
        if bias is not None:
            t.kernel("reduce", dtype, 0, g.bytes)
            made.append(t.empty((rows,), dtype))
        return tuple(made)

    return t.op(inputs, (count, rows), dtype, backward, (pixels, weight))


def begun(d: Tower, x: Tensor, leaf: bool) -> None:
    """`enable_input_require_grads` on the tower's input embedding x; `leaf`: the recipe calls it.

    Source: transformers 5.23, modeling_utils.py, enable_input_require_grads.
    """
    if leaf and d.v.code.patches_are_leaf and not x.needs_grad:
        x.needs_grad = True
