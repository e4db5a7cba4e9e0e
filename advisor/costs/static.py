"""What is held for the whole run, tensor by tensor: weights, quantization constants, adapters, optimizer states."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.costs.optimizer import kept_tensors
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.parameters.buffers import buffer_bytes
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import (
    head_linear,
    layer_linears,
    layer_norms,
    outer_linears,
    own_dtype,
    own_parameters,
)
from advisor.parameters.own_weights import frozen_groups, outer_tensors, own_weights, trained_groups
from advisor.parameters.storage import (
    layer_quant,
    other_dtype,
    own_quant,
    quantized_bias_dtype,
    quantized_store_bytes,
    store_bytes,
    whole_counts,
)
from advisor.parameters.towers import picture_bytes, tower_linears, tower_parts, tower_quant, tower_shapes
from advisor.parameters.trained import idle_adapters, idle_tower_adapters, trained_shapes
from advisor.specs import LinearShape, ModelSpec, Recipe, VisionSpec
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


def _add_base_weights(tally: _Tally, m: ModelSpec, recipe: Recipe, quantized_head: bool) -> None:
    dtype, left = other_dtype(recipe), int(quantized_head)
    for shape, times, own, _ in outer_tensors(m, recipe):
        head = left if shape == (m.vocab_size, m.token_size) else 0
        left -= head
        tally.add(TermName.BASE_WEIGHTS, prod(shape) * ITEM_BYTES[own], times - head)
    if quantized_head:
        _add_linear(tally, m, head_linear(m).model_copy(update={"bias": False}), recipe, dtype, 1, 0)
    if m.vision is not None:
        _add_tower(tally, m.vision, recipe)
    for linear in outer_linears(m).values():
        _add_linear(tally, m, linear, recipe, dtype, 1, 0)
    if recipe.has_adapters:
        counts = whole_counts(m) if recipe.is_quantized else {}
        for part, layers in layer_groups(m):
            whole = {name: counts.get((part, name), 0) for name in layer_linears(part)} if counts else {}
            _add_layers(tally, part, recipe, dtype, layers, whole)
        return
    for groups, own in ((frozen_groups(m, recipe), dtype), (trained_groups(m, recipe), own_weights(m, recipe).dtype)):
        for part, layers in groups:
            _add_layers(tally, part, recipe, own, layers, {})


def _add_tower(tally: _Tally, v: VisionSpec, recipe: Recipe) -> None:
    """The weights of a vision tower and its projector, and its buffers.

    The bias of a layer that bitsandbytes quantizes takes the dtype that it computes in when it first runs, which on
    rows of text it never does.
    """
    term, other = TermName.BASE_WEIGHTS, ITEM_BYTES[other_dtype(recipe)]
    for shape, times in tower_linears(v):
        bias = other
        if tower_quant(v, recipe, shape.name) != "none":
            packed, constants = store_bytes(shape.in_features, shape.out_features, recipe)
            tally.add(term, packed, times)
            for size in constants:
                tally.add(TermName.QUANTIZATION_CONSTANTS, size, times)
            bias = ITEM_BYTES[recipe.base_dtype] if v.row else other
        else:
            tally.add(term, shape.weight_count * other, times)
        if shape.bias:
            tally.add(term, shape.out_features * bias, times)
    for sizes, times in tower_shapes(v):
        tally.add(term, prod(sizes) * other, times)
    parts, item = tower_parts(v), ITEM_BYTES[recipe.base_dtype]
    for size in (*parts.buffers, *(item * count for count in parts.base_buffers)):
        tally.add(TermName.BUFFERS, size)


def tower_bytes(v: VisionSpec, recipe: Recipe) -> int:
    """The weights of a vision tower and its projector by a recipe, with their quantization constants."""
    tally = _Tally()
    _add_tower(tally, v, recipe)
    return sum(size for term, size in tally.exact.items() if term is not TermName.BUFFERS)


def _add_linear(
    tally: _Tally, m: ModelSpec, shape: LinearShape, recipe: Recipe, dtype: str, times: int, whole: int
) -> None:
    """A linear layer that occurs `times` times, `whole` of them not quantized; those are in `dtype`."""
    other = ITEM_BYTES[dtype]
    quant, term = layer_quant(m, recipe), TermName.BASE_WEIGHTS
    if quant != "none":
        packed, constants = store_bytes(shape.in_features, shape.out_features, recipe)
        tally.add(term, packed, times - whole)
        tally.add(term, shape.weight_count * other, whole)
        for size in constants:
            tally.add(TermName.QUANTIZATION_CONSTANTS, size, times - whole)
    else:
        tally.add(term, shape.weight_count * (4 if shape.wide else other), times)
    if shape.bias:
        bias = ITEM_BYTES[quantized_bias_dtype(m, recipe, shape.name)] if quant not in ("none", "fp8") else other
        tally.add(term, shape.out_features * bias, times - whole)
        tally.add(term, shape.out_features * other, whole)


def _add_layers(tally: _Tally, m: ModelSpec, recipe: Recipe, dtype: str, layers: int, whole: Mapping[str, int]) -> None:
    """The weights of `layers` layers, equal but for the linear layers of which `whole` are not quantized.

    Those and all else that is not quantized are in `dtype`.
    """
    other, term = ITEM_BYTES[dtype], TermName.BASE_WEIGHTS
    for shape in layer_linears(m).values():
        _add_linear(tally, m, shape, recipe, dtype, layers, whole.get(shape.name, 0))
    for norm in layer_norms(m):
        tally.add(term, norm.width * other, norm.vectors * layers)
    for own in own_parameters(m).values():
        quant = own_quant(own, m, recipe)
        if quant == "none":
            tally.add(term, prod(own.shape) * ITEM_BYTES[own_dtype(own, dtype)], layers)
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
    held = _held(m, recipe.model_copy(update=alike), stack.quantized_head(recipe))
    tally = _Tally(held)
    tally.add(TermName.BATCH, 8 * batch * length, 1 + beside)
    if m.labels:
        tally.add(TermName.BATCH, (8 if m.labels > 1 else 4) * batch)
    for size in picture_bytes(m, batch, length):
        tally.add(TermName.BATCH, size)
    for size in stack.standing_bytes(m, recipe, batch, length):
        tally.add(TermName.BUFFERS, size)
    return Static(tally.exact, tally.blocks, tally.tensors)


@lru_cache(maxsize=64)
def _held(m: ModelSpec, recipe: Recipe, quantized_head: bool) -> Static:
    """The same without the batch: equal for the many plans that differ in micro-batch and checkpointing."""
    tally = _Tally()
    _add_base_weights(tally, m, recipe, quantized_head)
    shapes = trained_shapes(m, recipe)
    if recipe.has_adapters:
        for p in (*shapes, *idle_adapters(m, recipe), *idle_tower_adapters(m, recipe)):
            tally.add(TermName.ADAPTERS, p.bytes, p.times)
    for term, size, times in kept_tensors(shapes, recipe.optimizer):
        tally.add(term, size, times)
    for size, times in buffer_bytes(m, recipe):
        tally.add(TermName.BUFFERS, size, times)
    return Static(tally.exact, tally.blocks, tally.tensors)
