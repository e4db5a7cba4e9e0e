"""Which tensors a recipe trains: adapters, or every parameter."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.modules import last_norm, layer_linears, layer_norms, resolve_targets
from advisor.specs import DTYPE_BYTES, ModelSpec, Recipe


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


@lru_cache(maxsize=64)
def trained_shapes(m: ModelSpec, recipe: Recipe) -> tuple[Trained, ...]:
    """Every trained tensor."""
    layers = m.num_hidden_layers
    found: list[Trained] = []
    if recipe.has_adapters:
        targets = resolve_targets(m, recipe.target_modules)
        for name, shape in layer_linears(m).items():
            if name in targets:
                found += [Trained(recipe.rank, shape.in_features, layers, recipe.adapter_dtype),
                          Trained(shape.out_features, recipe.rank, layers, recipe.adapter_dtype)]
                if recipe.is_dora:
                    found.append(Trained(shape.out_features, 0, layers, recipe.adapter_dtype))
        return tuple(found)
    dtype: str = recipe.base_dtype
    found.append(Trained(m.vocab_size, m.hidden_size, 1 if m.tie_word_embeddings else 2, dtype))
    if m.position == "learned":
        found.append(Trained(m.max_position_embeddings, m.hidden_size, 1, dtype))
    if m.lm_head_bias:
        found.append(Trained(m.vocab_size, 0, 1, dtype))
    for shape in layer_linears(m).values():
        found.append(Trained(shape.out_features, shape.in_features, layers, dtype))
        if shape.bias:
            found.append(Trained(shape.out_features, 0, layers, dtype))
    found += [Trained(n.width, 0, n.vectors * layers, dtype) for n in layer_norms(m) if n.vectors]
    last = last_norm(m)
    if last.vectors:
        found.append(Trained(last.width, 0, last.vectors, dtype))
    return tuple(found)
