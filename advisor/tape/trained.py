"""Which tensors a recipe trains: adapters, or every parameter."""

from __future__ import annotations

from functools import lru_cache

from advisor.modules import layer_linears, layer_norms, outer_norms, resolve_targets
from advisor.specs import ModelSpec, Recipe

TrainedShape = tuple[int, int, int, str]
"""(rows, columns or 0 for a vector, how many, dtype)."""


@lru_cache(maxsize=64)
def trained_shapes(m: ModelSpec, recipe: Recipe) -> tuple[TrainedShape, ...]:
    """Every trained tensor."""
    layers = m.num_hidden_layers
    found: list[TrainedShape] = []
    if recipe.has_adapters:
        targets = resolve_targets(m, recipe.target_modules)
        for name, shape in layer_linears(m).items():
            if name in targets:
                found += [(recipe.rank, shape.in_features, layers, recipe.adapter_dtype),
                          (shape.out_features, recipe.rank, layers, recipe.adapter_dtype)]
                if recipe.is_dora:
                    found.append((shape.out_features, 0, layers, recipe.adapter_dtype))
        return tuple(found)
    dtype: str = recipe.base_dtype
    found.append((m.vocab_size, m.hidden_size, 1 if m.tie_word_embeddings else 2, dtype))
    if m.position == "learned":
        found.append((m.max_position_embeddings, m.hidden_size, 1, dtype))
    if m.lm_head_bias:
        found.append((m.vocab_size, 0, 1, dtype))
    for shape in layer_linears(m).values():
        found.append((shape.out_features, shape.in_features, layers, dtype))
        if shape.bias:
            found.append((shape.out_features, 0, layers, dtype))
    found += [(n.width, 0, n.vectors * layers, dtype) for n in layer_norms(m) if n.vectors]
    found += [(n.width, 0, n.vectors, dtype) for n in outer_norms(m) if n.vectors]
    return tuple(found)
