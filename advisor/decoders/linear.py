"""A linear layer with its weights, and the product of one that is not quantized.

Mirrors torch.nn.functional.linear and torch.autocast; what peft and bitsandbytes add is in the modules beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.libraries import MIRRORED, Libraries, Version
from advisor.parameters.replacing import replacing_shapes
from advisor.parameters.targets import idles
from advisor.specs import LinearShape, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import cast
from advisor.tape.tape import CachedCast, Tape


class LinearCode(NamedTuple):
    """How the linear layers of a training stack differ."""

    trains_lora_a: bool = True
    libraries: Libraries = MIRRORED
    """Their versions say what products hold, what DoRA computes, and how fast bitsandbytes dequantizes."""
    update: Callable[[Tape, Tensor], Tensor] | None = None
    """What is done to LoRA's update (B, S, O) before it is scaled."""
    dequantize: Callable[[Tape, Linear], Tensor] | None = None
    """What makes the weight (O, I) of its store, where another library than bitsandbytes quantizes."""
    adapters_kept: str = ""
    """The dtype that an adapter's matrices have outside their own forward, where that is not the one inside it."""

    @property
    def bitsandbytes(self) -> Version:
        """The version of bitsandbytes."""
        return self.libraries.bitsandbytes


class Linear:
    """One linear layer with its weights as tensors; an adapter where the recipe puts one."""

    __slots__ = (
        "apart",
        "bias",
        "bias_apart",
        "code",
        "idle",
        "in_features",
        "lora_a",
        "lora_b",
        "magnitude",
        "name",
        "out_features",
        "quant",
        "recipe",
        "replacing",
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
        frozen: bool = False,
        bias_dtype: str = "",
    ) -> None:
        """`rank` is 0 where no adapter goes; `other_dtype` is that of what is not quantized, after k-bit upcasting.

        `bias_dtype`: that of a quantized layer's bias. `bias_apart`: the bias is added by a separate operation, as in
        Falcon's code. `frozen`: not trained even by method full.
        """
        trained = recipe.method == "full" and not frozen
        size = (shape.out_features, shape.in_features)
        self.in_features, self.out_features = shape.in_features, shape.out_features
        self.name, self.idle = shape.name, idles(shape, recipe)
        self.code = code
        self.apart = False  # its input's rows are not stored one after the other
        self.recipe = recipe
        self.quant = quant
        self.bias_apart = bias_apart
        # bitsandbytes casts a quantized layer's bias to the dtype it computes in, that of the dequantized weight.
        kept = quant in ("none", "fp8")
        dtype = recipe.base_dtype if not kept else "float32" if shape.wide else other_dtype
        self.weight = Tensor(size, recipe.base_dtype if quant != "none" else dtype, needs_grad=trained)
        bias_dtype = bias_dtype if not kept and bias_dtype else dtype
        self.bias = Tensor((shape.out_features,), bias_dtype, needs_grad=trained) if shape.bias else None
        self.lora_a = self.lora_b = self.magnitude = None
        self.replacing: tuple[Tensor, ...] = ()
        if rank and recipe.replaces_lora:
            shapes = replacing_shapes(shape, recipe, rank)
            self.replacing = tuple(Tensor(one, recipe.adapter_dtype, needs_grad=True) for one in shapes)
        elif rank:
            self.lora_a = Tensor((rank, shape.in_features), recipe.adapter_dtype, needs_grad=code.trains_lora_a)
            self.lora_b = Tensor((shape.out_features, rank), recipe.adapter_dtype, needs_grad=True)
            if recipe.is_dora:
                self.magnitude = Tensor((shape.out_features,), recipe.magnitude_dtype, needs_grad=True)

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        found = (self.weight, self.bias, self.lora_a, self.lora_b, self.magnitude, *self.replacing)
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


def product(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None = None, apart: bool = False) -> Tensor:
    """`F.linear`: x (..., I) times weight (O, I). Keeps x if the weight trains, the weight if x needs a gradient.

    `apart`: rows of x are not stored one after the other: a weight that trains gets a copy in which they are.
    Source: PyTorch 2.13, aten/src/ATen/native/LinearAlgebra.cpp, should_fold.
    """
    if t.autocast:
        x, weight = autocast_operand(t, x), autocast_operand(t, weight)
        bias = autocast_operand(t, bias) if bias is not None else None
    if apart and weight.needs_grad:
        x = copy(t, x, x.shape)
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
