"""Which tensors a recipe trains: adapters, or every parameter."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import (
    layer_linears,
    layer_norms,
    outer_linears,
    outer_parameters,
    own_dtype,
    own_parameters,
)
from advisor.parameters.targets import expert_adapters, outer_targets, resolve_targets, targets_in
from advisor.specs import LinearShape, ModelSpec, Recipe


class Trained(NamedTuple):
    """A trained tensor (rows, columns), or a vector with 0 columns, and how often it occurs."""

    rows: int
    columns: int
    times: int
    dtype: str

    @property
    def elements(self) -> int:
        """Elements of one."""
        return self.rows * max(self.columns, 1)

    @property
    def bytes(self) -> int:
        """Bytes of one."""
        return self.elements * ITEM_BYTES[self.dtype]


def _adapter(shape: LinearShape, recipe: Recipe, times: int) -> list[Trained]:
    """The adapter of a linear layer that occurs `times` times."""
    found = [
        Trained(recipe.rank, shape.in_features, times, recipe.adapter_dtype),
        Trained(shape.out_features, recipe.rank, times, recipe.adapter_dtype),
    ]
    return [*found, Trained(shape.out_features, 0, times, recipe.magnitude_dtype)] if recipe.is_dora else found


def _adapters(m: ModelSpec, recipe: Recipe, layers: int) -> list[Trained]:
    """The adapters of `layers` equal layers."""
    found: list[Trained] = []
    targets = targets_in(m, recipe.target_modules)
    for name, shape in layer_linears(m).items():
        if name in targets:
            found += _adapter(shape, recipe, layers)
    for pair in expert_adapters(m, recipe, recipe.rank).values():
        found += [Trained(rows, columns, layers, recipe.adapter_dtype) for rows, columns in pair]
    return found


def _weights(m: ModelSpec, dtype: str, layers: int) -> list[Trained]:
    """All weights of `layers` equal layers."""
    found: list[Trained] = []
    for shape in layer_linears(m).values():
        found.append(Trained(shape.out_features, shape.in_features, layers, "float32" if shape.wide else dtype))
        if shape.bias:
            found.append(Trained(shape.out_features, 0, layers, dtype))
    found += [Trained(n.width, 0, n.vectors * layers, dtype) for n in layer_norms(m) if n.vectors]
    for own in own_parameters(m).values():
        if not own.fixed:
            # A fused tensor (experts, rows, columns) counts as a tall matrix.
            *rows, columns = own.shape if len(own.shape) > 1 else (*own.shape, 0)
            found.append(Trained(prod(rows), columns, layers, own_dtype(own, dtype)))
    return found


@lru_cache(maxsize=64)
def trained_shapes(m: ModelSpec, recipe: Recipe) -> tuple[Trained, ...]:
    """Every trained tensor."""
    found: list[Trained] = []
    if recipe.has_adapters:
        resolve_targets(m, recipe.target_modules)  # raises for what the model does not have
        for part, layers in layer_groups(m):
            found += _adapters(part, recipe, layers)
        for shape in outer_targets(m, recipe.target_modules):
            found += _adapter(shape, recipe, 1)
        return tuple(found)
    dtype: str = recipe.base_dtype
    for size, times in outer_parameters(m):
        rows, columns = size if len(size) > 1 else (*size, 0)
        found.append(Trained(rows, columns, times, dtype))
    found += [Trained(shape.out_features, shape.in_features, 1, dtype) for shape in outer_linears(m).values()]
    for part, layers in layer_groups(m):
        found += _weights(part, dtype, layers)
    return tuple(found)
