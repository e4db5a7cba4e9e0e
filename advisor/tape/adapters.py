"""What a linear layer becomes: plain, stored in 4 or 8 bits, with LoRA, with DoRA.

Mirrors bitsandbytes 0.50 (nn/modules.py, autograd/_functions.py) and peft 0.21 (tuners/lora/layer.py, bnb.py,
dora.py, variants.py).
"""

from __future__ import annotations

from advisor.specs import LinearShape, Recipe
from advisor.tape.graph import ITEM_BYTES, Node, Tensor
from advisor.tape.ops import add, cast, copy, dropout, mul, scale, shift
from advisor.tape.tape import Tape

ADAPTER_LABELS = ("LoRA", "DoRA")
"""What stands behind a layer's name while its adapter runs."""


class Linear:
    """One linear layer with its weights as tensors; an adapter where the recipe puts one."""

    __slots__ = (
        "bias",
        "bias_apart",
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
        self, shape: LinearShape, recipe: Recipe, rank: int, quant: str, other_dtype: str, bias_apart: bool = False
    ) -> None:
        """`rank` is 0 where no adapter goes; `other_dtype` is that of what is not quantised, after k-bit upcasting.

        `bias_apart`: the bias is added by an operation of its own, as Falcon's code does.
        """
        trained = recipe.method == "full"
        size = (shape.out_features, shape.in_features)
        self.in_features, self.out_features = shape.in_features, shape.out_features
        self.name = shape.name
        self.recipe = recipe
        self.quant = quant
        self.bias_apart = bias_apart
        # bitsandbytes casts a quantised layer's bias to the dtype it computes in, that of the dequantised weight.
        dtype = recipe.base_dtype if quant != "none" else "float32" if shape.wide else other_dtype
        self.weight = Tensor(size, dtype, needs_grad=trained)
        self.bias = Tensor((shape.out_features,), dtype, needs_grad=trained) if shape.bias else None
        self.lora_a = self.lora_b = self.magnitude = None
        if rank:
            self.lora_a = Tensor((rank, shape.in_features), recipe.adapter_dtype, needs_grad=True)
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
        found = t.autocast_cache[id(x)] = (t.segment, cast(t, x, t.autocast))
    return found[1]


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

    saved = ((x,) if weight_needs else ()) + ((weight,) if x_needs else ())
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return t.op(inputs, (*shape[:-1], out_features), dtype, backward, saved)


def dequantized(t: Tape, m: Linear) -> Tensor:
    """The 16-bit weight (O, I) made from its 4-bit or 8-bit store."""
    count = m.weight.count
    if m.quant == "int8":
        return _dequantized_int8(t, m, m.weight.dtype)
    blocks = count // 64
    absmax: Tensor | None = None
    if m.recipe.double_quant:
        absmax = t.empty((blocks,), "float32")
        t.kernel("dequantize", "float32", 0, absmax.bytes + blocks + blocks // 64 + 1024)  # with a table of 256
        t.kernel("elementwise", "float32", 0, 2 * absmax.bytes)
    t.kernel("dequantize", m.weight.dtype, 0, count // 2 + 4 * blocks + m.weight.bytes)
    out = t.empty(m.weight.shape, m.weight.dtype)
    del absmax
    return out


def _linear_4bit(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """bitsandbytes' Linear4bit: keeps nothing; backward dequantises the weight again."""
    before = x.dtype
    x = cast(t, x, m.weight.dtype)
    shape, dtype = x.shape, x.dtype
    rows = x.count // m.in_features
    moved = ITEM_BYTES[dtype] * (rows * (m.in_features + m.out_features) + m.in_features * m.out_features)

    def backward(g: Tensor) -> tuple[Tensor]:
        weight = cast(t, dequantized(t, m), g.dtype)
        t.matmul(g.dtype, rows, m.in_features, m.out_features, moved)
        out = t.empty(shape, g.dtype)
        del weight
        return (out,)

    weight = dequantized(t, m) if t.device == "cuda" else None
    unpacked = ITEM_BYTES[dtype] * m.weight.count
    stored = m.weight.count // 2 + m.weight.count // 64  # what a CPU's one kernel reads in its place
    t.matmul(dtype, rows, m.out_features, m.in_features, moved - (0 if weight is not None else unpacked - stored))
    out = t.op((x,), (*shape[:-1], m.out_features), dtype, backward)
    del weight
    if t.stack.keeps_quantized_input and isinstance(out.node, Node):
        out.node.context = x.buffer
    return cast(t, out, before)


def _dequantized_int8(t: Tape, m: Linear, dtype: str) -> Tensor:
    """The weight (O, I) in `dtype`: cast, then scaled by rows in place."""
    weight, rows = t.empty(m.weight.shape, dtype), 4 * m.out_features
    for moved in (2 * rows, weight.count + weight.bytes, 2 * weight.bytes + rows):
        t.kernel("dequantize", dtype, 0, moved)
    return weight


def _linear_8bit(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """bitsandbytes' Linear8bitLt, which keeps its input on the graph, outside checkpointing's reach.

    On CUDA the input is cast to fp16 and quantised; the CPU path dequantises the weight and multiplies, in the
    dtype of autocast where that is on.
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

    out_dtype = dtype
    if t.device == "cpu":
        scratch = [_dequantized_int8(t, m, dtype)]
        if t.autocast:
            scratch += [cast(t, Tensor(shape, dtype, x.buffer), t.autocast), cast(t, scratch[0], t.autocast)]
            out_dtype = t.autocast
        t.matmul(out_dtype, rows, m.out_features, m.in_features, ITEM_BYTES[out_dtype] * (ends + weights))
    else:
        half = cast(t, Tensor(shape, dtype, x.buffer), "float16")
        t.kernel("reduce", "float16", 0, half.bytes + half.count)
        scratch = [half, t.empty((rows, m.in_features), "int8"), t.empty((rows, m.out_features), "float32")]
        product = scratch[2].bytes
        t.matmul("int8", rows, m.out_features, m.in_features, rows * m.in_features + weights + product)
        t.kernel("elementwise", "float16", 0, product + product // 2)  # its int32 sums, scaled by rows and columns
    out = t.op((x,), (*shape[:-1], m.out_features), out_dtype, backward)
    scratch.clear()
    if isinstance(out.node, Node):
        out.node.context = x.buffer
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


def linear(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """A linear layer as the recipe has it: x (B, S, I) -> (B, S, O)."""
    t.label(m.name)
    if m.lora_a is None or m.lora_b is None:
        return base_linear(t, x, m)
    results = [base_linear(t, x, m)]  # popped: peft rebinds the name of the base layer's result
    t.label(f"{m.name}, {ADAPTER_LABELS[m.magnitude is not None]}")
    out = _adapted(t, x, results, m)
    t.label(m.name)
    return out


def _adapted(t: Tape, x: Tensor, results: list[Tensor], m: Linear) -> Tensor:
    """The base layer's result with what the adapter adds."""
    assert m.lora_a is not None and m.lora_b is not None
    result = results.pop()
    if m.quant == "none":
        dtype = result.dtype
        inner = cast(t, x, m.lora_a.dtype)
        if m.magnitude is not None:
            result = _dora(t, inner, result, m)
        else:
            dropped = dropout(t, inner) if m.recipe.dropout else inner
            result = add(t, result, _lora_update(t, dropped, m))
        return cast(t, result, dtype)
    if m.quant != "int8":
        result = copy(t, result, result.shape)
    # peft asks torch.is_autocast_enabled(), which answers for CUDA alone.
    convert = not (t.autocast and t.device == "cuda")
    expected = result.dtype
    inner = cast(t, x, m.lora_a.dtype) if convert else x
    if m.magnitude is not None:
        result = _dora(t, inner, result, m)
        return cast(t, result, expected) if convert else result
    dropped = dropout(t, inner) if m.recipe.dropout else inner
    output = _lora_update(t, dropped, m)
    if convert:
        output = cast(t, output, expected)
    return add(t, result, output)


def _lora_update(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """What LoRA adds for x (B, S, I): (B, S, O). Only this function holds the product before it is scaled."""
    assert m.lora_a is not None and m.lora_b is not None
    update = product(t, product(t, x, m.lora_a), m.lora_b)
    if t.stack.padded_update:
        update = _padded(t, update)
    return scale(t, update)


def _padded(t: Tape, update: Tensor) -> Tensor:
    """The part of `update` (B, S, O) that is meant, copied, and then copied again into zeros of its full width.

    `Stack.padded_update` says how wide that part is. The index of its features goes to the card with every call.
    """
    narrow, shape, dtype = (*update.shape[:-1], t.stack.padded_update), update.shape, update.dtype
    source = copy(t, Tensor(narrow, dtype, update.buffer), narrow)
    zeros = t.empty(shape, dtype)
    index = t.empty((t.stack.padded_update,), "int64")
    t.kernel("gather", dtype, 0, zeros.bytes + 2 * source.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("gather", dtype, 0, 2 * g.bytes)
        return (t.empty(shape, dtype),)

    return t.op((update,), shape, dtype, backward, (source, index))


def _adapter_update(t: Tape, m: Linear) -> Tensor:
    """B A as a weight (O, I): peft sends an identity matrix through both, with gradients on and then unused."""
    assert m.lora_a is not None and m.lora_b is not None
    eye = t.empty((m.in_features, m.in_features), m.lora_a.dtype)
    t.kernel("elementwise", eye.dtype, 0, eye.bytes)
    update = product(t, product(t, eye, m.lora_a), m.lora_b)
    del eye
    return update


def _weight_norm(t: Tape, weight: Tensor, update: Tensor) -> Tensor:
    """`linalg.norm(weight + scaling * update, dim=1)`: (O,).

    The update is the transposed view of an (I, O) product, so that the sum reads one operand across its rows. Ignores:
    GPT-2's weights, which lie transposed too.
    """
    summed = add(t, weight, scale(t, Tensor(weight.shape, update.dtype, update.buffer)), "strided")
    t.kernel("reduce", summed.dtype, 0, summed.bytes)
    return t.empty((weight.shape[0],), summed.dtype)


def _dora(t: Tape, x: Tensor, result: Tensor, m: Linear) -> Tensor:
    """peft's DoRA variant on top of the base layer's `result` (B, S, O).

    `update` and `weight` stay alive to the end of this function, as peft's locals do.
    """
    assert m.lora_a is not None and m.lora_b is not None and m.magnitude is not None
    base_result: Tensor | None = result
    if m.recipe.dropout:
        x = dropout(t, x)
        base_result = None
    extra = _dora_extra(t, x, base_result, m)
    return add(t, result, extra)


def _dora_extra(t: Tape, x: Tensor, base_result: Tensor | None, m: Linear) -> Tensor:
    """What DoRA adds to the base layer's result; with dropout the base product is made again from the weight."""
    assert m.lora_a is not None and m.lora_b is not None and m.magnitude is not None
    update = cast(t, _adapter_update(t, m), x.dtype)
    weight = m.weight if m.quant == "none" else dequantized(t, m)
    weight = cast(t, weight, x.dtype)
    norm = _weight_norm(t, weight, update)
    ratio = mul(t, m.magnitude, norm)
    lora_result = product(t, product(t, x, m.lora_a), m.lora_b)
    if base_result is None:
        base_result = product(t, x, weight)
    elif m.bias is not None:
        base_result = add(t, base_result, m.bias)
    extra = add(t, mul(t, shift(t, ratio), base_result), scale(t, mul(t, ratio, lora_result)))
    del update, weight
    return extra
