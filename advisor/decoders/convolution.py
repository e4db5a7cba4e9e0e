"""The causal convolution over time that hybrid models run before their recurrence, each channel by itself.

Source: transformers 5.23, models/*/modeling_*.py, `causal_conv1d_fn`, which causal-conv1d's kernel replaces.
"""

from __future__ import annotations

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
        return _convolved(t, x, weight, bias, 0)
    given, shape = x.dtype, x.shape
    x = cast(t, x, weight.dtype)
    if t.autocast:
        x, weight = autocast_operand(t, x), autocast_operand(t, weight)
        bias = autocast_operand(t, bias) if bias is not None else None
    out = _convolved(t, x, weight, bias, weight.shape[-1] - 1)
    out = part(t, out, shape)
    return cast(t, unary(t, out, "input") if activated else out, given)


def _convolved(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """x (B, S, C) -> (B, S + padding, C). Keeps input and weight."""
    batch, length, channels = x.shape
    shape, dtype, weight_shape = x.shape, x.dtype, weight.shape
    needs = x.needs_grad, weight.needs_grad, bias is not None and bias.needs_grad
    flop = 2 * weight_shape[-1] * x.count
    moved = 2 * x.bytes + weight.bytes
    t.kernel("convolution", dtype, flop, moved)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        gx, gw, gb = (
            t.empty(of, dtype) if asked else None
            for asked, of in zip(needs, (shape, weight_shape, (channels,)), strict=True)
        )
        if needs[0]:
            t.kernel("convolution", dtype, flop, moved)
        if needs[1] or needs[2]:
            t.kernel("convolution", dtype, flop, moved)
        return gx, gw, gb

    inputs = (x, weight) if bias is None else (x, weight, bias)
    return t.op(inputs, (batch, length + padding, channels), dtype, backward, (x, weight))
