"""xIELU, an activation that learns two numbers (Apertus): squares on one side, an exponential on the other.

Source: transformers 5.23, activations.py, `XIELUActivation._xielu_python`; arXiv:2411.13010.
Ignores: the fused CUDA kernel that takes over where the package `xielu` is installed.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.blocks import ITEM_BYTES
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, mul, promoted, shift, subtract, unary
from advisor.tape.tape import Tape


def xielu(t: Tape, x: Tensor, own: Mapping[str, Tensor]) -> Tensor:
    """`where(x > 0, p x x + b x, (expm1(min(x, eps)) - x) n + b x)`; lists are popped: no operand outlives its use."""
    beta = Tensor((), x.dtype)
    p = _softplus(t, own["alpha_p"])
    n = shift(t, _softplus(t, own["alpha_n"]))
    positive = t.empty(x.shape, "bool")
    t.kernel("elementwise", x.dtype, 0, x.bytes + positive.bytes)
    squared = [mul(t, x, p)]
    squared = [mul(t, squared.pop(), x)]
    above = add(t, squared.pop(), mul(t, x, beta))
    negative = [unary(t, _minimum(t, x), "output", backward_temporaries=1)]
    negative = [subtract(t, negative.pop(), x)]
    negative = [mul(t, negative.pop(), n)]
    below = add(t, negative.pop(), mul(t, x, beta))
    return _where(t, positive, above, below)


def _softplus(t: Tape, x: Tensor) -> Tensor:
    """`softplus(x)`, which keeps x."""
    return unary(t, x, "input")


def _minimum(t: Tape, x: Tensor) -> Tensor:
    """`min(x, eps)`: keeps both; backward compares them twice, and halves the gradient where they are equal."""
    shape, dtype, eps, size, count = x.shape, x.dtype, Tensor((), x.dtype), x.bytes, x.count
    t.kernel("elementwise", dtype, 0, 2 * size)

    def backward(g: Tensor) -> tuple[Tensor]:
        # equal, half, one of the two; larger, and there zeros
        for moved in (size + count, 2 * g.bytes, 3 * g.bytes + count, size + count, 2 * g.bytes + count):
            t.kernel("elementwise", g.dtype, 0, moved)
        scratch = [t.empty(shape, "bool"), t.empty(shape, g.dtype)]
        halved = t.empty(shape, g.dtype)
        scratch.clear()
        return (halved,)

    return t.op((x,), shape, dtype, backward, (x, eps))


def _where(t: Tape, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`where(condition, a, b)`: keeps the condition; backward fills each gradient with zeros where it was not taken."""
    shape, dtype = a.shape, promoted(a.dtype, b.dtype)
    flags, size = condition.bytes, a.count * ITEM_BYTES[dtype]
    t.kernel("elementwise", dtype, 0, a.bytes + b.bytes + flags + size)

    def backward(g: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(2):
            t.kernel("elementwise", dtype, 0, flags + g.bytes + size)
        return t.empty(shape, dtype), t.empty(shape, dtype)

    return t.op((a, b), shape, dtype, backward, (condition,))
