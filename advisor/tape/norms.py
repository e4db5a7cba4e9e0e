"""Norms, written as the model code computes them."""

from __future__ import annotations

from advisor.tape.ops import add, cast, mean_last, mul, scale, shift, unary
from advisor.tape.tape import Tape, Tensor


def _square(t: Tape, x: Tensor) -> Tensor:
    """`x.pow(2)`: backward makes `x.pow(1)` and its double beside the result."""
    return unary(t, x, "input", backward_temporaries=2)


def _inverse_root(t: Tape, x: Tensor) -> Tensor:
    """`rsqrt(mean(x^2) + eps)` of the last axis."""
    return unary(t, shift(t, mean_last(t, _square(t, x))), "output", backward_temporaries=2)


def rms_norm(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """Llama's RMSNorm: computed in fp32, cast back, then times the weight."""
    wide = cast(t, x, "float32")
    variance = mean_last(t, _square(t, wide))
    wide = mul(t, wide, unary(t, shift(t, variance), "output", backward_temporaries=2))
    return mul(t, cast(t, wide, x.dtype), weight)


def rms_norm_unit_offset(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """Gemma's RMSNorm: x * rsqrt(...) * (1 + weight), all in fp32, cast back at the end."""
    wide = cast(t, x, "float32")
    output = mul(t, wide, _inverse_root(t, wide))
    output = mul(t, output, shift(t, cast(t, weight, "float32")))
    return cast(t, output, x.dtype)


def layer_norm(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`nn.LayerNorm`: one kernel that keeps its input and two statistics per row. CUDA's autocast runs it in fp32."""
    if t.autocast and t.device == "cuda":
        x, weight = cast(t, x, "float32"), cast(t, weight, "float32")
        bias = cast(t, bias, "float32") if bias is not None else None
    shape, dtype = x.shape, x.dtype
    rows = (*shape[:-1], 1)
    t.kernel("reduce", dtype, 0, 2 * x.bytes)
    mean, rstd = t.empty(rows, "float32"), t.empty(rows, "float32")
    weight_shape, weight_dtype = weight.shape, weight.dtype
    needs = (x.needs_grad, weight.needs_grad)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        t.kernel("reduce", dtype, 0, 3 * g.bytes)
        gx = t.empty(shape, dtype) if needs[0] else None
        if not needs[1]:
            return gx, None, None
        return gx, t.empty(weight_shape, weight_dtype), t.empty(weight_shape, weight_dtype)

    inputs = (x, weight, bias if bias is not None else weight)
    return t.op(inputs, shape, dtype, backward, (x, weight, mean, rstd))


def layer_norm_float(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """A LayerNorm written out in fp32 (Cohere): subtract the mean, times the inverse root, times the weight."""
    wide = cast(t, x, "float32")
    mean = mean_last(t, wide)
    centred = add(t, wide, mean)
    variance = mean_last(t, _square(t, add(t, wide, mean)))
    normed = mul(t, centred, unary(t, shift(t, variance), "output", backward_temporaries=2))
    return cast(t, mul(t, normed, cast(t, weight, "float32")), x.dtype)


def softcap(t: Tape, x: Tensor) -> Tensor:
    """`tanh(x / cap) * cap`."""
    x = scale(t, x)
    x = unary(t, x, "output")
    return scale(t, x)
