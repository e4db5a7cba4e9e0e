"""A linear layer without its adapter: plain, or stored in 4 or 8 bits.

Mirrors bitsandbytes 0.50 (nn/modules.py, autograd/_functions.py) and torch.autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.libraries import MIRRORED, Libraries, Version
from advisor.specs import LinearShape, Recipe
from advisor.tape.graph import Node, Tensor
from advisor.tape.ops import add, cast
from advisor.tape.tape import CachedCast, Tape


class LinearCode(NamedTuple):
    """How the linear layers of a training stack differ."""

    trains_lora_a: bool = True
    libraries: Libraries = MIRRORED
    """Their versions say what products hold, what DoRA computes, and how fast bitsandbytes dequantizes."""
    update: Callable[[Tape, Tensor], Tensor] | None = None
    """What is done to LoRA's update (B, S, O) before it is scaled."""

    @property
    def bitsandbytes(self) -> Version:
        """The version of bitsandbytes."""
        return self.libraries.bitsandbytes


FIRST_WITHOUT_INPUT, FIRST_WITHOUT_TRANSPOSE, FIRST_WITH_TABLE = (0, 43), (0, 45), (0, 48)
"""Versions of bitsandbytes. Before the first, 4-bit products hold their input on the graph, beyond checkpointing;
before the second, int8 products hold theirs quantized by columns, too; the third dequantizes 4 bits by a table.

Sources: bitsandbytes 0.41.3, 0.43.3 and 0.45.5, autograd/_functions.py, `ctx.tensors` in MatMul4Bit.forward and
MatMul8bitLt.forward; github.com/bitsandbytes-foundation/bitsandbytes/pull/1747.
"""
DEQUANTIZE, BRANCHING, NESTED_OF_2023 = "dequantize", "dequantize before 0.48", "nested dequantize before 0.42"
DEQUANTIZING = (DEQUANTIZE, BRANCHING, NESTED_OF_2023)
"""Kinds of kernels: today's; with a branch for each bit; with nested constants in 0.41."""


def dequantize_kind(version: Version, nested: bool) -> str:
    """The kind of kernel that makes a 16-bit weight from 4 bits."""
    if nested and version < (0, 42):
        return NESTED_OF_2023
    return DEQUANTIZE if version >= FIRST_WITH_TABLE else BRANCHING


class Linear:
    """One linear layer with its weights as tensors; an adapter where the recipe puts one."""

    __slots__ = (
        "bias",
        "bias_apart",
        "code",
        "in_features",
        "lora_a",
        "lora_b",
        "magnitude",
        "name",
        "out_features",
        "quant",
        "recipe",
        "weight",
    )

    def __init__(
        self,
        shape: LinearShape,
        recipe: Recipe,
        rank: int,
        quant: str,
        other_dtype: str,
        code: LinearCode = LinearCode(),  # noqa: B008 - immutable
        bias_apart: bool = False,
        bias_dtype: str = "",
    ) -> None:
        """`rank` is 0 where no adapter goes; `other_dtype` is that of what is not quantized, after k-bit upcasting.

        `bias_dtype`: that of a quantized layer's bias. `bias_apart`: the bias is added by a separate operation, as in
        Falcon's code.
        """
        trained = recipe.method == "full"
        size = (shape.out_features, shape.in_features)
        self.in_features, self.out_features = shape.in_features, shape.out_features
        self.name = shape.name
        self.code = code
        self.recipe = recipe
        self.quant = quant
        self.bias_apart = bias_apart
        # bitsandbytes casts a quantized layer's bias to the dtype it computes in, that of the dequantized weight.
        dtype = recipe.base_dtype if quant != "none" else "float32" if shape.wide else other_dtype
        self.weight = Tensor(size, dtype, needs_grad=trained)
        bias_dtype = bias_dtype if quant != "none" and bias_dtype else dtype
        self.bias = Tensor((shape.out_features,), bias_dtype, needs_grad=trained) if shape.bias else None
        self.lora_a = self.lora_b = self.magnitude = None
        if rank:
            self.lora_a = Tensor((rank, shape.in_features), recipe.adapter_dtype, needs_grad=code.trains_lora_a)
            self.lora_b = Tensor((shape.out_features, rank), recipe.adapter_dtype, needs_grad=True)
            if recipe.is_dora:
                self.magnitude = Tensor((shape.out_features,), recipe.magnitude_dtype, needs_grad=True)

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        found = (self.weight, self.bias, self.lora_a, self.lora_b, self.magnitude)
        return [p for p in found if p is not None and p.needs_grad]


def autocast_operand(t: Tape, x: Tensor) -> Tensor:
    """What autocast hands to a matrix product: fp32 leaves that get gradients are cast once and cached.

    Such leaves are trained weights, and an embedding's output that checkpointing made one.
    """
    if not t.autocast or x.dtype == t.autocast:
        return x
    if not (x.needs_grad and x.node is None and x.dtype == "float32"):
        return cast(t, x, t.autocast)
    found = t.autocast_cache.get(id(x))
    if found is None:
        found = t.autocast_cache[id(x)] = CachedCast(t.segment, x, cast(t, x, t.autocast))
    return found.cast


def product(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x (..., I) times weight (O, I). Keeps x if the weight trains, the weight if x needs a gradient."""
    if t.autocast:
        x, weight = autocast_operand(t, x), autocast_operand(t, weight)
        bias = autocast_operand(t, bias) if bias is not None else None
    out_features, in_features = weight.shape
    dtype, shape, weight_shape = weight.dtype, x.shape, weight.shape
    rows = x.count // in_features
    moved = ITEM_BYTES[dtype] * (rows * (in_features + out_features) + in_features * out_features)
    t.matmul(dtype, rows, out_features, in_features, moved + (bias.bytes if bias is not None else 0))
    x_needs, weight_needs, bias_needs = x.needs_grad, weight.needs_grad, bias is not None and bias.needs_grad

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        gx = gw = gb = None
        if x_needs:
            t.matmul(dtype, rows, in_features, out_features, moved)
            gx = t.empty(shape, dtype)
        if weight_needs:
            t.matmul(dtype, out_features, in_features, rows, moved)
            gw = t.empty(weight_shape, dtype)
        if bias_needs:
            t.kernel("reduce", dtype, 0, g.bytes)
            gb = t.empty((out_features,), dtype)
        return gx, gw, gb

    saved = ((weight,) if x_needs else ()) + ((x,) if weight_needs else ())  # the weight as a view, first
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return t.op(inputs, (*shape[:-1], out_features), dtype, backward, saved)


def dequantized(t: Tape, m: Linear) -> Tensor:
    """The 16-bit weight (O, I) made from its 4-bit or 8-bit store."""
    count = m.weight.count
    if m.quant == "int8":
        return _dequantized_int8(t, m, m.weight.dtype)
    blocks = count // 64
    kind = dequantize_kind(m.code.bitsandbytes, m.recipe.double_quant)
    absmax: Tensor | None = None
    if m.recipe.double_quant:
        absmax = t.empty((blocks,), "float32")
        t.kernel(kind, "float32", 0, absmax.bytes + blocks + blocks // 64 + 1024)  # with a table of 256
        t.kernel("elementwise", "float32", 0, 2 * absmax.bytes)
    t.kernel(kind, m.weight.dtype, 0, count // 2 + 4 * blocks + m.weight.bytes)
    out = t.empty(m.weight.shape, m.weight.dtype)
    del absmax
    return out


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
    """
    before = x.dtype
    x = cast(t, x, _compute_dtype(x, m))
    shape = x.shape
    composed = m.code.bitsandbytes < (0, 50)
    dtype = t.autocast if composed and t.autocast else x.dtype
    rows = x.count // m.in_features
    moved = ITEM_BYTES[dtype] * (rows * (m.in_features + m.out_features) + m.in_features * m.out_features)

    def backward(g: Tensor) -> tuple[Tensor]:
        weight = cast(t, dequantized(t, m), g.dtype)
        t.matmul(g.dtype, rows, m.in_features, m.out_features, moved)
        out = t.empty(shape, g.dtype)
        del weight
        return (out,)

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


def _dequantized_int8(t: Tape, m: Linear, dtype: str) -> Tensor:
    """The weight (O, I) in `dtype`: cast, then scaled by rows in place."""
    weight, rows = t.empty(m.weight.shape, dtype), 4 * m.out_features
    for moved in (2 * rows, weight.count + weight.bytes, 2 * weight.bytes + rows):
        t.kernel(DEQUANTIZE, dtype, 0, moved)
    return weight


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
        weight = _dequantized_int8(t, m, dtype)
        g = cast(t, g, dtype)
        t.matmul(dtype, rows, m.in_features, m.out_features, moved)
        out = t.empty(shape, dtype)
        del weight
        return (out,)

    out_dtype, kept = dtype, [x.buffer]
    if t.device == "cpu":
        scratch = [_dequantized_int8(t, m, dtype)]
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


def base_linear(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """The layer without its adapter."""
    if m.quant == "none":
        if m.bias_apart and m.bias is not None:
            return add(t, product(t, x, m.weight), m.bias)
        return product(t, x, m.weight, m.bias)
    if m.quant == "int8":
        return _linear_8bit(t, x, m)
    return _linear_4bit(t, x, m)
