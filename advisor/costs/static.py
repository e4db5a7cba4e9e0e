"""What is held for the whole run, tensor by tensor: weights, quantization constants, adapters, optimizer states."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.costs.optimizer import kept_tensors
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.parameters.buffers import buffer_bytes
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import (
    layer_linears,
    layer_norms,
    outer_linears,
    outer_parameters,
    own_dtype,
    own_parameters,
)
from advisor.parameters.storage import (
    layer_quant,
    other_dtype,
    own_quant,
    quantized_bias_dtype,
    quantized_store_bytes,
    unquantized_name,
)
from advisor.parameters.trained import trained_shapes
from advisor.specs import LinearShape, ModelSpec, Recipe
from advisor.terms import TermName


class Static(NamedTuple):
    """Bytes that are held for the whole run: `exact` as numel times itemsize, `blocks` as the allocator rounds them."""

    exact: dict[TermName, int]
    blocks: dict[TermName, int]
    tensors: list[tuple[TermName, int, int]]  # (term, bytes, times) of each kind of tensor


class _Tally:
    """Sums tensors by term, exact and in allocator blocks."""

    def __init__(self, held: Static | None = None) -> None:
        """Further tensors are added to those of `held`, which stays as it is."""
        self.exact: dict[TermName, int] = dict(held.exact) if held else {}
        self.blocks: dict[TermName, int] = dict(held.blocks) if held else {}
        self.tensors: list[tuple[TermName, int, int]] = list(held.tensors) if held else []

    def add(self, term: TermName, size_bytes: int, times: int = 1) -> None:
        self.exact[term] = self.exact.get(term, 0) + size_bytes * times
        self.blocks[term] = self.blocks.get(term, 0) + block_bytes(size_bytes) * times
        self.tensors.append((term, size_bytes, times))


def _add_base_weights(tally: _Tally, m: ModelSpec, recipe: Recipe) -> None:
    other = ITEM_BYTES[other_dtype(recipe)]
    for shape, times in outer_parameters(m):
        tally.add(TermName.BASE_WEIGHTS, prod(shape) * other, times)
    for linear in outer_linears(m).values():
        _add_linear(tally, m, linear, recipe, 1, 0)
    for part, layers in layer_groups(m):
        _add_layers(tally, part, recipe, layers)


def _add_linear(tally: _Tally, m: ModelSpec, shape: LinearShape, recipe: Recipe, times: int, whole: int) -> None:
    """A linear layer that occurs `times` times, `whole` of them not quantized."""
    other = ITEM_BYTES[other_dtype(recipe)]
    quant, term = layer_quant(m, recipe), TermName.BASE_WEIGHTS
    if quant != "none":
        packed, constants = quantized_store_bytes(shape.weight_count, quant, recipe.double_quant)
        tally.add(term, packed, times - whole)
        tally.add(term, shape.weight_count * other, whole)
        for size in constants or [4 * shape.out_features]:
            tally.add(TermName.QUANTIZATION_CONSTANTS, size, times - whole)
    else:
        tally.add(term, shape.weight_count * (4 if shape.wide else other), times)
    if shape.bias:
        bias = ITEM_BYTES[quantized_bias_dtype(m, recipe, shape.name)]
        tally.add(term, shape.out_features * (bias if quant != "none" else other), times)


def _add_layers(tally: _Tally, m: ModelSpec, recipe: Recipe, layers: int) -> None:
    """The weights of `layers` equal layers."""
    other, term = ITEM_BYTES[other_dtype(recipe)], TermName.BASE_WEIGHTS
    for shape in layer_linears(m).values():
        _add_linear(tally, m, shape, recipe, layers, int(shape.name == unquantized_name(m)))
    for norm in layer_norms(m):
        tally.add(term, norm.width * other, norm.vectors * layers)
    for own in own_parameters(m).values():
        quant = own_quant(own, m, recipe)
        if quant == "none":
            tally.add(term, prod(own.shape) * ITEM_BYTES[own_dtype(own, other_dtype(recipe))], layers)
            continue
        packed, constants = quantized_store_bytes(prod(own.shape), quant, recipe.double_quant)
        tally.add(term, packed, layers)
        for size in constants:
            tally.add(TermName.QUANTIZATION_CONSTANTS, size, layers)


def static_memory(
    m: ModelSpec, recipe: Recipe, batch: int, length: int, beside: bool = False, stack: Stack = THIS_STACK
) -> Static:
    """Everything that is held from the first step to the last.

    `beside`: the batch has a mask of its padding, or position ids.

    Raises UnknownName for an optimizer without a row.
    """
    alike = {"micro_batch": 1, "gradient_accumulation": 1, "gradient_checkpointing": True, "expandable_segments": False}
    held = _held(m, recipe.model_copy(update=alike))
    tally = _Tally(held)
    tally.add(TermName.BATCH, 8 * batch * length, 1 + beside)
    for size in stack.standing_bytes(m, recipe, batch, length):
        tally.add(TermName.BUFFERS, size)
    return Static(tally.exact, tally.blocks, tally.tensors)


@lru_cache(maxsize=64)
def _held(m: ModelSpec, recipe: Recipe) -> Static:
    """The same without the batch: equal for the many plans that differ in micro-batch and checkpointing."""
    tally = _Tally()
    _add_base_weights(tally, m, recipe)
    shapes = trained_shapes(m, recipe)
    if recipe.has_adapters:
        for p in shapes:
            tally.add(TermName.ADAPTERS, p.bytes, p.times)
    for term, size, times in kept_tensors(shapes, recipe.optimizer):
        tally.add(term, size, times)
    for size, times in buffer_bytes(m, recipe):
        tally.add(TermName.BUFFERS, size, times)
    return Static(tally.exact, tally.blocks, tally.tensors)
