"""The causal convolution over time that hybrid models run before their recurrence, each channel by itself.

Of a few taps: it takes as long as its memory traffic, as elementwise kernels do.

Source: transformers 5.23, models/*/modeling_*.py, `causal_conv1d_fn`, which causal-conv1d's kernel replaces.
"""

from __future__ import annotations

from math import prod

from advisor.decoders.linear import autocast_operand
from advisor.tape.graph import Tensor
from advisor.tape.layout import part
from advisor.tape.ops import cast, unary
from advisor.tape.tape import Tape


def causal_convolution(
    t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, fused: bool, activated: bool = False
) -> Tensor:
    """x (B, S, C), stored by channel, with the weight (C, 1, K): (B, S, C), of which each row saw those before it.

    fused: causal-conv1d's kernel, which computes the activation itself. Else PyTorch's convolution, padded by K - 1 at
    both ends, whose last K - 1 columns are cut off.
    """
    if fused:
        return _fused(t, x, weight, bias)
    given, shape = x.dtype, x.shape
    x = cast(t, x, weight.dtype)
    if t.autocast:
        x, weight = autocast_operand(t, x), autocast_operand(t, weight)
        bias = autocast_operand(t, bias) if bias is not None else None
    out = _convolved(t, x, weight, bias, weight.shape[-1] - 1)
    out = part(t, out, shape)
    return cast(t, unary(t, out, "input") if activated else out, given)


def _fused(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """causal-conv1d's function of x (B, S, C): in x's dtype, whatever the weight's and autocast's; keeps its inputs.

    Backward always makes the gradients of weight and bias, in fp32. Deterministic algorithms, which are off by default,
    would add a workspace.
    Source: causal-conv1d 1.6.1, causal_conv1d_interface.py, CausalConv1dFn; cpp_functions.py,
    causal_conv1d_bwd_function; csrc/causal_conv1d.cpp.
    """
    shape, dtype = x.shape, x.dtype
    inputs = (x, weight) if bias is None else (x, weight, bias)
    needs, like = [one.needs_grad for one in inputs], [Tensor(one.shape, one.dtype) for one in inputs[1:]]
    flop, moved = 2 * weight.shape[-1] * x.count, 2 * x.bytes + weight.bytes

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        gx = t.empty(shape, dtype)
        sums = [t.empty(one.shape, "float32") for one in like]
        for one in sums:
            t.kernel("elementwise", "float32", 0, one.bytes)
        t.kernel("elementwise", dtype, 2 * flop, moved + x_bytes)
        found = [cast(t, one, given.dtype) for one, given in zip(sums, like, strict=True)]
        return tuple(one if needed else None for one, needed in zip((gx, *found), needs, strict=True))

    x_bytes = x.bytes
    t.kernel("elementwise", dtype, flop, moved)
    return t.function(t.empty(shape, dtype), inputs, backward, inputs)


def _convolved(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """x (B, S, C) -> (B, S + padding, C). Keeps input and weight."""
    batch, length, channels = x.shape
    shape, dtype, weight_shape = x.shape, x.dtype, weight.shape
    out_shape = (batch, length + padding, channels)
    needs = x.needs_grad, weight.needs_grad, bias is not None and bias.needs_grad
    flop = 2 * weight_shape[-1] * prod(out_shape)
    moved = 2 * x.bytes + weight.bytes
    t.kernel("elementwise", dtype, flop, moved)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        gx, gw, gb = (
            t.empty(of, dtype) if asked else None
            for asked, of in zip(needs, (shape, weight_shape, (channels,)), strict=True)
        )
        if needs[0]:
            t.kernel("elementwise", dtype, flop, moved)
        if needs[1] or needs[2]:
            t.kernel("elementwise", dtype, flop, moved)
        return gx, gw, gb

    inputs = (x, weight) if bias is None else (x, weight, bias)
    return t.op(inputs, out_shape, dtype, backward, (x, weight))
