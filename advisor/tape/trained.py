"""Which tensors a recipe trains: adapters, or every parameter."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from advisor.layers import layer_groups
from advisor.modules import last_norm, layer_linears, layer_norms, own_dtype, own_parameters
from advisor.specs import DTYPE_BYTES, ModelSpec, Recipe
from advisor.targets import expert_adapters, resolve_targets, targets_in


class Trained(NamedTuple):
    """A trained tensor (rows, columns), or a vector with 0 columns, and how many of it there are."""

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
        return self.elements * DTYPE_BYTES[self.dtype]


def _adapters(m: ModelSpec, recipe: Recipe, layers: int) -> list[Trained]:
    """The adapters of `layers` equal layers."""
    found: list[Trained] = []
    targets = targets_in(m, recipe.target_modules)
    for name, shape in layer_linears(m).items():
        if name in targets:
            found += [Trained(recipe.rank, shape.in_features, layers, recipe.adapter_dtype),
                      Trained(shape.out_features, recipe.rank, layers, recipe.adapter_dtype)]
            if recipe.is_dora:
                found.append(Trained(shape.out_features, 0, layers, recipe.magnitude_dtype))
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
        resolve_targets(m, recipe.target_modules)  # it refuses what the model does not have
        for part, layers in layer_groups(m):
            found += _adapters(part, recipe, layers)
        return tuple(found)
    dtype: str = recipe.base_dtype
    found.append(Trained(m.vocab_size, m.hidden_size, 1 if m.tie_word_embeddings else 2, dtype))
    if m.position == "learned":
        found.append(Trained(m.position_rows, m.hidden_size, 1, dtype))
    if m.lm_head_bias:
        found.append(Trained(m.vocab_size, 0, 1, dtype))
    for part, layers in layer_groups(m):
        found += _weights(part, dtype, layers)
    last = last_norm(m)
    if last.vectors:
        found.append(Trained(last.width, 0, last.vectors, dtype))
    return tuple(found)
