"""The feed-forward block and its activations, expression by expression as the model code writes them."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.decoders.adapters import linear
from advisor.decoders.linear import Linear
from advisor.decoders.xielu import xielu
from advisor.specs import ModelSpec
from advisor.tape.graph import Node, Tensor
from advisor.tape.ops import add, cast, chunk_last, mul, scale, shift, unary
from advisor.tape.tape import Tape


def activation(t: Tape, kind: str, x: Tensor) -> Tensor:
    """The activation of x, any shape."""
    if kind == "relu":
        return unary(t, x, "output")
    if kind == "relu2":
        return unary(t, unary(t, x, "output"), "input", backward_temporaries=2)
    if kind in _WRITTEN_OUT:
        return _WRITTEN_OUT[kind](t, x)
    return unary(t, x, "input")


def _gelu_new(t: Tape, x: Tensor) -> Tensor:
    """`0.5 * x * (1 + tanh(c * (x + 0.044715 * x**3)))` in eight operations; CUDA's autocast takes powers in fp32."""
    half = scale(t, x)
    base = cast(t, x, "float32") if t.autocast and t.device == "cuda" else x
    cubed = [unary(t, base, "input", backward_temporaries=2)]  # popped: no operand outlives its operation
    return mul(t, half, shift(t, unary(t, scale(t, add(t, x, scale(t, cubed.pop()))), "output")))


def _gelu_fast(t: Tape, x: Tensor) -> Tensor:
    """`0.5 * x * (1 + tanh(x * c * (1 + 0.044715 * x * x)))`; lists are popped: no operand outlives its operation."""
    half, scaled = [scale(t, x)], [scale(t, x)]
    squared = [mul(t, scale(t, x), x)]
    inner = [mul(t, scaled.pop(), shift(t, squared.pop()))]
    return mul(t, half.pop(), shift(t, unary(t, inner.pop(), "output")))


def _gelu_bloom(t: Tape, x: Tensor) -> Tensor:
    """BLOOM's autograd function: `_gelu_fast` without a graph; backward computes it all again from x.

    Backward's names are rebound as soon as the real expression lets go of a value.
    Source: transformers 5.23, models/bloom/modeling_bloom.py, `GeLUFunction`, `bloom_gelu_back`.
    """
    was_enabled, t.grad_enabled = t.grad_enabled, False
    out = _gelu_fast(t, x)
    t.grad_enabled = was_enabled
    if not (was_enabled and x.needs_grad):
        return out
    shape, dtype, held = x.shape, x.dtype, x.bytes

    def backward(g: Tensor) -> tuple[Tensor]:
        def again(operands: int = 1) -> Tensor:
            t.kernel("elementwise", dtype, 0, (operands + 1) * held)
            return t.empty(shape, dtype)

        # tanh_out = torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x))
        scaled, squared = again(), again()  # 0.79788456 * x, 0.044715 * x
        squared = again(2)  # 0.044715 * x * x
        squared = again()  # 1 + 0.044715 * x * x
        scaled = again(2)  # 0.79788456 * x * (...)
        tanh = again()
        del scaled, squared
        # ff = 0.5 * x * ((1 - tanh_out * tanh_out) * (0.79788456 + 0.1070322243 * x * x)) + 0.5 * (1 + tanh_out)
        half, inner = again(), again(2)  # 0.5 * x, tanh_out * tanh_out
        inner = again()  # 1 - tanh_out * tanh_out
        cubic = again()  # 0.1070322243 * x
        cubic = again(2)  # 0.1070322243 * x * x
        cubic = again()  # 0.79788456 + 0.1070322243 * x * x
        inner = again(2)  # (1 - ...) * (0.79788456 + ...)
        del cubic
        half = again(2)  # 0.5 * x * (...)
        del inner
        second = again()  # 1 + tanh_out
        second = again()  # 0.5 * (1 + tanh_out)
        half = again(2)  # their sum
        del second
        # return ff * g
        out = t.empty(shape, g.dtype if g.dtype == dtype else "float32")
        t.kernel("elementwise", dtype, 0, held + g.bytes + out.bytes)
        del half, tanh
        return (out,)

    node = Node(t, (x,), backward)
    t.save(node, (x,))
    out.node, out.needs_grad = node, True
    return out


_WRITTEN_OUT = {"gelu_new": _gelu_new, "gelu_fast": _gelu_fast, "gelu_bloom": _gelu_bloom}


def feed_forward(
    t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], own: Mapping[str, Tensor] | None = None
) -> Tensor:
    """x (B, S, H) -> (B, S, H); `own` is what the activation learns, if anything."""
    names = m.mlp_names
    if m.mlp == "plain":
        up = linear(t, x, linears[names[0]])
        up = xielu(t, up, own) if own else activation(t, m.activation, up)
        return linear(t, up, linears[names[1]])
    if m.mlp == "gated_fused":
        joined = linear(t, x, linears[names[0]])
        gate, up = chunk_last(t, joined, (m.intermediate_size, m.intermediate_size))
        up = mul(t, up, activation(t, m.activation, gate))
        return linear(t, up, linears[names[1]])
    # Popped where it is used: the real expression has no name for the activated gate.
    activated = [activation(t, m.activation, linear(t, x, linears[names[0]]))]
    return linear(t, mul(t, activated.pop(), linear(t, x, linears[names[1]])), linears[names[2]])
