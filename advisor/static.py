"""What stands for the whole run, tensor by tensor: weights, quantisation constants, adapters, optimizer states."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from advisor.buffers import buffer_bytes
from advisor.layers import layer_groups
from advisor.modules import (
    layer_linears,
    layer_norms,
    outer_linears,
    outer_parameters,
    own_dtype,
    own_parameters,
)
from advisor.specs import DTYPE_BYTES, LinearShape, ModelSpec, Recipe
from advisor.tape.program import block_bytes
from advisor.tape.trained import Trained, trained_shapes
from advisor.tape.weights import layer_quant, other_dtype, unquantized_name

QUANTIZATION_BLOCK = 64
NESTED_BLOCK = 256
OPTIMIZER_BLOCK = 256
MIN_8BIT_ELEMENTS = 4096


class Static(NamedTuple):
    """Bytes that stand for the whole run: `exact` as numel times itemsize, `blocks` as the allocator rounds them."""

    exact: dict[str, int]
    blocks: dict[str, int]


def quantized_store_bytes(elements: int, quant: str, double_quant: bool) -> tuple[int, list[int]]:
    """(packed weight bytes, sizes of the constants' tensors) of one weight that bitsandbytes stores.

    nf4/fp4: half a byte, one fp32 absmax per 64, or with double quantisation one uint8 per 64, one fp32 per 256 of
    those and an fp32 offset; tables of 16 and (nested) 256 fp32. int8: one byte and one fp32 per output row (the
    rows are added by the caller). Source: bitsandbytes 0.50, functional.py, quantize_4bit.
    """
    if quant == "int8":
        return elements, []
    packed = -(-elements // 2)
    blocks = -(-elements // QUANTIZATION_BLOCK)
    if not double_quant:
        return packed, [4 * blocks, 16 * 4]
    return packed, [blocks, 4 * -(-blocks // NESTED_BLOCK), 256 * 4, 16 * 4, 4]


class _Tally:
    """Sums tensors by term, exact and in allocator blocks."""

    def __init__(self) -> None:
        self.exact: dict[str, int] = {}
        self.blocks: dict[str, int] = {}

    def add(self, term: str, size_bytes: int, times: int = 1) -> None:
        self.exact[term] = self.exact.get(term, 0) + size_bytes * times
        self.blocks[term] = self.blocks.get(term, 0) + block_bytes(size_bytes) * times


def _add_base_weights(tally: _Tally, m: ModelSpec, recipe: Recipe) -> None:
    other = DTYPE_BYTES[other_dtype(recipe)]
    for shape, times in outer_parameters(m):
        tally.add("base weights", prod(shape) * other, times)
    for linear in outer_linears(m).values():
        _add_linear(tally, m, linear, recipe, 1, 0)
    for part, layers in layer_groups(m):
        _add_layers(tally, part, recipe, layers)


def _add_linear(tally: _Tally, m: ModelSpec, shape: LinearShape, recipe: Recipe, times: int, whole: int) -> None:
    """A linear layer that is there `times` times, `whole` of them not quantised."""
    other, base = DTYPE_BYTES[other_dtype(recipe)], DTYPE_BYTES[recipe.base_dtype]
    quant, term = layer_quant(m, recipe), "base weights"
    if quant != "none":
        packed, constants = quantized_store_bytes(shape.weight_count, quant, recipe.double_quant)
        tally.add(term, packed, times - whole)
        tally.add(term, shape.weight_count * other, whole)
        for size in constants or [4 * shape.out_features]:
            tally.add("quantisation constants", size, times - whole)
    else:
        tally.add(term, shape.weight_count * (4 if shape.wide else other), times)
    if shape.bias:
        tally.add(term, shape.out_features * (base if quant != "none" else other), times)


def _add_layers(tally: _Tally, m: ModelSpec, recipe: Recipe, layers: int) -> None:
    """The weights of `layers` equal layers."""
    other, term = DTYPE_BYTES[other_dtype(recipe)], "base weights"
    for shape in layer_linears(m).values():
        _add_linear(tally, m, shape, recipe, layers, int(shape.name == unquantized_name(m)))
    for norm in layer_norms(m):
        tally.add(term, norm.width * other, norm.vectors * layers)
    for own in own_parameters(m).values():
        tally.add(term, prod(own.shape) * DTYPE_BYTES[own_dtype(own, other_dtype(recipe))], layers)


class Unquantized(NamedTuple):
    """Weights of the layers that bitsandbytes leaves alone: their bytes, and their share of the parameters there."""

    bytes: int
    share: float


def unquantized_layers(m: ModelSpec, recipe: Recipe) -> Unquantized:
    """What a quantised recipe leaves in 16 bits (fp32 after k-bit preparation): fused experts, layers of own classes.

    Ignores: biases and norms, which are vectors.
    """
    left = whole = size = 0
    for part, layers in layer_groups(m):
        linears = sum(shape.weight_count for shape in layer_linears(part).values())
        own = list(own_parameters(part).values())
        stays = sum(prod(p.shape) for p in own) + (linears if layer_quant(part, recipe) == "none" else 0)
        left += layers * stays
        whole += layers * (linears + sum(prod(p.shape) for p in own))
        size += layers * stays * DTYPE_BYTES[other_dtype(recipe)]
    return Unquantized(size, left / whole)


def optimizer_state_sizes(p: Trained, optimizer: str) -> list[int]:
    """Bytes of each state tensor that the optimizer keeps for one parameter, outside paged memory.

    AdamW keeps two moments in the parameter's dtype. bitsandbytes' 8-bit AdamW keeps two uint8 and two fp32 per
    256 elements, and 32-bit states below 4,096 elements; paged states of 100,000 elements and more live in managed
    memory, which spills to the CPU. Adafactor keeps a row and a column in fp32, or a vector's full second moment.
    """
    elements = p.elements
    if optimizer == "sgd":
        return []
    if optimizer == "adafactor":
        return [4 * p.rows, 4 * p.columns] if p.columns else [4 * p.rows]
    if optimizer in ("adamw", "adamw_foreach"):
        return [p.bytes] * 2
    if optimizer == "paged_adamw":
        return [] if elements >= 100_000 else [4 * elements] * 2
    if elements < MIN_8BIT_ELEMENTS:
        return [4 * elements] * 2
    blocks = 4 * -(-elements // OPTIMIZER_BLOCK)
    if optimizer == "paged_adamw_8bit" and elements >= 100_000:
        return [blocks] * 2
    return [elements, elements, blocks, blocks]


def optimizer_temporary_bytes(shapes: Iterable[Trained], optimizer: str) -> int:
    """Most that the optimizer's step allocates beside its states.

    Fused AdamW and bitsandbytes work in place. foreach AdamW makes one copy of all parameters (a square root).
    Adafactor makes, for the largest parameter, its update twice and, if it is in 16 bits, fp32 copies of it and of
    its gradient. Source: transformers/optimization.py, Adafactor.step.
    """
    if optimizer == "adamw_foreach":
        return sum(block_bytes(p.bytes) * p.times for p in shapes)
    if optimizer == "adafactor":
        return max((block_bytes(4 * p.elements) * (2 if p.dtype == "float32" else 4) for p in shapes), default=0)
    return 0


def static_memory(m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Static:
    """Everything that stands from the first step to the last."""
    tally = _Tally()
    _add_base_weights(tally, m, recipe)
    shapes = trained_shapes(m, recipe)
    steps = 0
    for p in shapes:
        if recipe.has_adapters:
            tally.add("adapters", p.bytes, p.times)
        for size in optimizer_state_sizes(p, recipe.optimizer):
            tally.add("optimizer states", size, p.times)
        steps += p.times
    if recipe.optimizer in ("adamw", "adamw_foreach", "adafactor"):
        tally.add("optimizer step counters", 4, steps)
    if recipe.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        tally.add("optimizer states", 1024, 2)
    for size, times in buffer_bytes(m, recipe):
        tally.add("buffers", size, times)
    tally.add("batch", 8 * batch * length)
    return Static(tally.exact, tally.blocks)
