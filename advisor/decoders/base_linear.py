"""A linear layer without its adapter: plain, or stored in fewer bits.

Mirrors bitsandbytes 0.50 (nn/modules.py, autograd/_functions.py) and torch.autocast; of checkpoints that are quantized
already, gptqmodel 7.7 (nn_modules/qlinear), hqq 0.2.8 (core/quantize.py) and transformers 5.23
(integrations/finegrained_fp8.py).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.decoders.dequantized import dequantized, dequantized_int8
from advisor.decoders.linear import Linear, product
from advisor.decoders.unpacked import UNPACKED
from advisor.tape.graph import Node, Shape, Tensor
from advisor.tape.ops import add, add_in_place, cast
from advisor.tape.tape import Tape

FIRST_WITHOUT_INPUT, FIRST_WITHOUT_TRANSPOSE = (0, 43), (0, 45)
"""Versions of bitsandbytes. Before the first, 4-bit products hold their input on the graph, beyond checkpointing;
before the second, int8 products hold theirs quantized by columns, too.

Sources: bitsandbytes 0.41.3, 0.43.3 and 0.45.5, autograd/_functions.py, `ctx.tensors` in MatMul4Bit.forward and
MatMul8bitLt.forward.
"""


def _compute_dtype(x: Tensor, m: Linear) -> str:
    """The dtype that bitsandbytes' Linear4bit works in: the one given to it, which is the weight's.

    Before 0.47 it was that of the first input if that was bf16 or fp32, as it is after k-bit preparation.
    Source: bitsandbytes 0.46 and 0.47, nn/modules.py, Linear4bit.__init__ (`compute_type_is_set`), set_compute_type.
    """
    takes_inputs = m.code.bitsandbytes < (0, 47) and x.dtype in ("float32", "bfloat16")
    return x.dtype if takes_inputs else m.weight.dtype


def _linear_4bit(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """bitsandbytes' Linear4bit: keeps nothing; backward dequantizes the weight again.

    Before 0.50 it multiplies by the dequantized weight on every device, and autocast casts both.
    Source: bitsandbytes 0.49 and 0.50, autograd/_functions.py, MatMul4Bit.

    So does gptqmodel's AwqGEMMLinear for more than 1,024 tokens; for fewer its kernel unpacks as it multiplies.
    """
    before = x.dtype
    x = cast(t, x, _compute_dtype(x, m))
    shape = x.shape
    composed = m.code.bitsandbytes < (0, 50)
    dtype = t.autocast if composed and t.autocast else x.dtype
    rows = x.count // m.in_features
    moved = ITEM_BYTES[dtype] * (rows * (m.in_features + m.out_features) + m.in_features * m.out_features)

    backward = _unpacked_again(t, m, shape, moved)

    scratch: list[Tensor] = []
    if composed or t.device == "cuda":
        scratch.append(cast(t, dequantized(t, m), x.dtype))
        scratch += [cast(t, scratch[0], dtype), cast(t, Tensor(shape, x.dtype, x.buffer), dtype)]
    unpacked = ITEM_BYTES[dtype] * m.weight.count
    stored = m.weight.count // 2 + m.weight.count // 64  # what a CPU's one kernel reads in its place
    t.matmul(dtype, rows, m.out_features, m.in_features, moved - (0 if scratch else unpacked - stored))
    out = t.op((x,), (*shape[:-1], m.out_features), dtype, backward)
    scratch.clear()
    if m.code.bitsandbytes < FIRST_WITHOUT_INPUT and isinstance(out.node, Node):
        out.node.context = (x.buffer,)
    return cast(t, out, before)


def _unpacked_again(t: Tape, m: Linear, shape: Shape, moved: int) -> Callable[[Tensor], tuple[Tensor]]:
    """The backward of a product of x, of this shape, whose weight is made from its store once more."""
    rows = prod(shape) // m.in_features

    def backward(g: Tensor) -> tuple[Tensor]:
        weight = cast(t, dequantized(t, m), g.dtype)
        t.matmul(g.dtype, rows, m.in_features, m.out_features, moved)
        out = t.empty(shape, g.dtype)
        del weight
        return (out,)

    return backward


def _linear_dequantized(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """A product with a weight that is made before it, and again in backward; nothing is kept.

    Source: torchao 0.9, dtypes/nf4tensor.py, LinearNF4.
    """
    shape, dtype, rows = x.shape, x.dtype, x.count // m.in_features
    moved = ITEM_BYTES[dtype] * (rows * (m.in_features + m.out_features) + m.in_features * m.out_features)

    def backward(g: Tensor) -> tuple[Tensor]:
        weight = dequantized(t, m)
        t.matmul(dtype, rows, m.in_features, m.out_features, moved)
        out = t.empty(shape, g.dtype)
        del weight
        return (out,)

    weight = dequantized(t, m)
    t.matmul(dtype, rows, m.out_features, m.in_features, moved)
    out = t.op((x,), (*shape[:-1], m.out_features), dtype, backward)
    del weight
    return out if m.bias is None else add(t, out, m.bias)


def _linear_8bit(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """bitsandbytes' Linear8bitLt, which keeps its input on the graph, outside checkpointing's reach.

    On CUDA the input is cast to fp16 and quantized; the CPU path dequantizes the weight and multiplies, in the
    dtype of autocast where that is on. Before 0.45 the input was quantized by columns as well, and that kept.
    Ignores, of that time: a product in another layout of its operands, and the columns of outliers.
    """
    shape, dtype = x.shape, x.dtype
    rows = x.count // m.in_features
    ends, weights = rows * (m.in_features + m.out_features), m.weight.count
    moved = ITEM_BYTES[dtype] * (ends + weights)

    def backward(g: Tensor) -> tuple[Tensor]:
        weight = dequantized_int8(t, m, dtype)
        g = cast(t, g, dtype)
        t.matmul(dtype, rows, m.in_features, m.out_features, moved)
        out = t.empty(shape, dtype)
        del weight
        return (out,)

    out_dtype, kept = dtype, [x.buffer]
    if t.device == "cpu":
        scratch = [dequantized_int8(t, m, dtype)]
        if t.autocast:
            scratch += [cast(t, Tensor(shape, dtype, x.buffer), t.autocast), cast(t, scratch[0], t.autocast)]
            out_dtype = t.autocast
        t.matmul(out_dtype, rows, m.out_features, m.in_features, ITEM_BYTES[out_dtype] * (ends + weights))
    else:
        if m.code.bitsandbytes < FIRST_WITHOUT_TRANSPOSE:
            kept.append(t.empty((rows, m.in_features), "int8").buffer)
        half = cast(t, Tensor(shape, dtype, x.buffer), "float16")
        t.kernel("reduce", "float16", 0, half.bytes + half.count)
        scratch = [half, t.empty((rows, m.in_features), "int8"), t.empty((rows, m.out_features), "float32")]
        product = scratch[2].bytes
        t.matmul("int8", rows, m.out_features, m.in_features, rows * m.in_features + weights + product)
        t.kernel("elementwise", "float16", 0, product + product // 2)  # its int32 sums, scaled by rows and columns
    out = t.op((x,), (*shape[:-1], m.out_features), out_dtype, backward)
    scratch.clear()
    if isinstance(out.node, Node):
        out.node.context = tuple(kept)
    return out


def _linear_gptq(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """gptqmodel's TorchLinear in training: a plain product with the unpacked weight, which is kept for backward.

    Its faster kernels cannot train; its Triton layer leaves training to this one.
    """
    weight = cast(t, dequantized(t, m), x.dtype)
    out = product(t, x, weight)
    del weight
    return out if m.bias is None else add_in_place(t, out, m.bias)


def _linear_hqq(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """hqq's HQQMatmulNoCacheMul: keeps its input, which its backward does not use, and unpacks the weight twice."""
    shape, dtype = x.shape, t.autocast or x.dtype
    rows = x.count // m.in_features
    moved = ITEM_BYTES[dtype] * (rows * (m.in_features + m.out_features) + m.weight.count)

    backward = _unpacked_again(t, m, shape, moved)

    scratch = [dequantized(t, m), cast(t, Tensor(shape, x.dtype, x.buffer), dtype)]
    scratch[0] = cast(t, scratch[0], dtype)
    t.matmul(dtype, rows, m.out_features, m.in_features, moved)
    out = t.op((x,), (*shape[:-1], m.out_features), dtype, backward, (x,))
    scratch.clear()
    return out if m.bias is None else add_in_place(t, out, m.bias)


def _linear_fp8(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """transformers' FP8Linear: the input is quantized by rows, keeps nothing; backward dequantizes the weight.

    The input as DeepGEMM gets it: a byte a number and an fp32 scale for each 128. Ignores: that FP8 products are
    faster; its Triton kernel, which quantizes as it multiplies.
    """
    shape, dtype = x.shape, x.dtype
    rows, ends = x.count // m.in_features, m.in_features + m.out_features

    def backward(g: Tensor) -> tuple[Tensor]:
        weight = UNPACKED["fp8"](t, m.weight.shape, g.dtype, m.recipe)
        t.matmul(g.dtype, rows, m.in_features, m.out_features, ITEM_BYTES[g.dtype] * (rows * ends + m.weight.count))
        out = t.empty(shape, g.dtype)
        del weight
        return (out,)

    scratch = [t.empty((rows, m.in_features), "int8"), t.empty((rows, -(-m.in_features // 128)), "float32")]
    quantized = sum(one.bytes for one in scratch)
    t.kernel("reduce", dtype, 0, x.bytes + quantized)
    moved = quantized + m.weight.count + rows * m.out_features * ITEM_BYTES[dtype]
    t.matmul(m.weight.dtype, rows, m.out_features, m.in_features, moved)
    out = t.op((x,), (*shape[:-1], m.out_features), dtype, backward)
    scratch.clear()
    return out if m.bias is None else add_in_place(t, out, m.bias)


_STORED: dict[str, Callable[[Tape, Tensor, Linear], Tensor]] = {
    "int8": _linear_8bit,
    "gptq": _linear_gptq,
    "hqq": _linear_hqq,
    "fp8": _linear_fp8,
}


def base_linear(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """The layer without its adapter."""
    if m.quant == "none":
        if m.bias_apart and m.bias is not None:
            return add(t, product(t, x, m.weight), m.bias)
        return product(t, x, m.weight, m.bias, m.apart)
    if m.code.dequantize is not None:
        return _linear_dequantized(t, x, m)
    return _STORED.get(m.quant, _linear_4bit)(t, x, m)
