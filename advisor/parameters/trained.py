"""Which tensors a recipe trains: adapters, or every parameter."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.optimizers import optimizer_row
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import (
    SINKS,
    head_linear,
    layer_linears,
    layer_norms,
    outer_linears,
    outer_parameters,
    own_dtype,
    own_parameters,
)
from advisor.parameters.own_weights import OwnWeights, outer_tensors, own_weights, saves_inner, trained_groups
from advisor.parameters.replacing import check_replacing, replacing_shapes
from advisor.parameters.storage import other_dtype
from advisor.parameters.targets import expert_adapters, idles, outer_adapters, resolve_targets, targets_in
from advisor.specs import LinearShape, ModelSpec, Recipe


class Trained(NamedTuple):
    """A trained tensor (rows, columns), or a vector with 0 columns, and how often it occurs."""

    rows: int
    columns: int
    times: int
    dtype: str
    inner: bool = False  # the matrix of a linear layer inside a decoder layer, or of its adapter
    projection: int = 0  # the rank that a low-rank optimizer projects its gradient to

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
    if recipe.replaces_lora:
        return [_replacing(one, recipe, times) for one in replacing_shapes(shape, recipe, recipe.rank)]
    found = [
        Trained(recipe.rank, shape.in_features, times, recipe.adapter_dtype, True, _projection(recipe)),
        Trained(shape.out_features, recipe.rank, times, recipe.adapter_dtype, True, _projection(recipe)),
    ]
    return [*found, Trained(shape.out_features, 0, times, recipe.magnitude_dtype)] if recipe.is_dora else found


def _replacing(shape: tuple[int, ...], recipe: Recipe, times: int) -> Trained:
    """A tensor of an adapter in LoRA's place."""
    if len(shape) == 1:
        return Trained(shape[0], 0, times, recipe.adapter_dtype)
    return Trained(shape[0], shape[1], times, recipe.adapter_dtype, True, _projection(recipe))


def _projection(recipe: Recipe) -> int:
    return recipe.optimizer_rank if optimizer_row(recipe.optimizer).low_rank else 0


def _copies(m: ModelSpec, own: OwnWeights) -> list[Trained]:
    """What peft trains of the modules that are named beside the adapters: copies of their parameters."""
    found = [Trained(m.embedding_rows, m.token_size, 1, own.dtype)] * own.embedding
    if own.head and m.labels:
        saved = [head_linear(m), *(outer_linears(m).values() if saves_inner(m) else ())]
        found += [Trained(one.out_features, one.in_features, 1, own.dtype) for one in saved]
        found += [Trained(one.out_features, 0, 1, own.dtype) for one in saved if one.bias]
    elif own.head:
        found.append(Trained(m.vocab_size, m.token_size, 1, own.dtype))
        found += [Trained(m.vocab_size, 0, 1, own.dtype)] * m.lm_head_bias
    if own.norms:
        vectors = [(one.shape[0], one.times) for one in outer_parameters(m) if one.part == "norms"]
        for part, layers in layer_groups(m):
            vectors += [(n.width, n.vectors * layers) for n in layer_norms(part) if n.vectors and n.name != SINKS]
        found += [Trained(width, 0, times, own.dtype) for width, times in vectors]
    return found


def _adapters(m: ModelSpec, recipe: Recipe, layers: int) -> list[Trained]:
    """The adapters of `layers` equal layers, without the idle ones."""
    found: list[Trained] = []
    targets = targets_in(m, recipe.target_modules)
    for name, shape in layer_linears(m).items():
        if name in targets and not idles(shape, recipe):
            found += _adapter(shape, recipe, layers)
    for pair in expert_adapters(m, recipe, recipe.rank).values():
        found += [Trained(rows, columns, layers, recipe.adapter_dtype) for rows, columns in pair]
    return found


def _weights(m: ModelSpec, recipe: Recipe, dtype: str, layers: int) -> list[Trained]:
    """All weights of `layers` equal layers."""
    found: list[Trained] = []
    for shape in layer_linears(m).values():
        if shape.idle:
            continue
        stored = "float32" if shape.wide else dtype
        found.append(Trained(shape.out_features, shape.in_features, layers, stored, True, _projection(recipe)))
        if shape.bias:
            found.append(Trained(shape.out_features, 0, layers, dtype))
    found += [Trained(n.width, 0, n.vectors * layers, dtype) for n in layer_norms(m) if n.vectors]
    for own in own_parameters(m).values():
        if not own.fixed:
            # A fused tensor (experts, rows, columns) counts as a tall matrix.
            *rows, columns = own.shape if len(own.shape) > 1 else (*own.shape, 0)
            found.append(Trained(prod(rows), columns, layers, own_dtype(own, dtype)))
    return found


def idle_adapters(m: ModelSpec, recipe: Recipe) -> list[Trained]:
    """The adapters of linear layers that get no gradients: held, but never updated, and no optimizer keeps states.

    Source: PyTorch 2.13, torch/optim/adamw.py, `_init_group`: parameters whose grad is None are passed over.
    """
    found: list[Trained] = []
    if recipe.has_adapters:
        for part, layers in trained_groups(m, recipe):
            targets = targets_in(part, recipe.target_modules)
            for name, shape in layer_linears(part).items():
                if name in targets and (part.passed_over or idles(shape, recipe)):
                    found += _adapter(shape, recipe, layers)
    return found


@lru_cache(maxsize=64)
def tower_trained_shapes(m: ModelSpec, recipe: Recipe) -> tuple[Trained, ...]:
    """What of a vision tower and its projector gets gradients on images: not what no token is made of."""
    if m.vision is None:
        return ()
    from advisor.parameters.tower_targets import tower_adapted
    from advisor.parameters.towers import tower_linears, tower_shapes, tower_trained

    found: list[Trained] = []
    if recipe.has_adapters:
        names = tower_adapted(m, recipe)
        for shape, times in tower_linears(m.vision, read=True):
            found += _adapter(shape, recipe, times) if shape.name in names else []
        return tuple(found)
    if not tower_trained(recipe):
        return ()
    dtype = other_dtype(recipe)
    for shape, times in tower_linears(m.vision, read=True):
        found.append(Trained(shape.out_features, shape.in_features, times, dtype, True, _projection(recipe)))
        found += [Trained(shape.out_features, 0, times, dtype)] * shape.bias
    for size, times in tower_shapes(m.vision, read=True):
        found.append(Trained(size[0], prod(size[1:]) if len(size) > 1 else 0, times, dtype))
    return tuple(found)


def idle_tower_adapters(m: ModelSpec, recipe: Recipe) -> list[Trained]:
    """The adapters of a tower that get no gradients: on rows of text all, else those of blocks that nothing reads."""
    v = m.vision
    if v is None or not recipe.has_adapters:
        return []
    from advisor.parameters.tower_targets import tower_adapted
    from advisor.parameters.towers import tower_parts

    found = [] if v.row else list(tower_trained_shapes(m, recipe))
    if v.unread_blocks:
        names, block = tower_adapted(m, recipe), tower_parts(v).block.values()
        found += [one for shape in block if shape.name in names for one in _adapter(shape, recipe, v.unread_blocks)]
    return found


@lru_cache(maxsize=64)
def trained_shapes(m: ModelSpec, recipe: Recipe) -> tuple[Trained, ...]:
    """Every tensor that gets gradients."""
    found: list[Trained] = list(tower_trained_shapes(m, recipe)) if m.vision is not None and m.vision.row else []
    own = own_weights(m, recipe)
    if recipe.has_adapters:
        if recipe.replaces_lora:
            check_replacing(m, recipe)
        resolve_targets(m, recipe.target_modules)  # raises for what the model does not have
        for part, layers in trained_groups(m, recipe):
            found += [] if part.passed_over else _adapters(part, recipe, layers)
        for shape in outer_adapters(m, recipe):
            found += _adapter(shape, recipe, 1)
        return (*found, *_copies(m, own))
    for size, times, dtype, trained in outer_tensors(m, recipe):
        rows, columns = size if len(size) > 1 else (*size, 0)
        found += [Trained(rows, columns, times, dtype)] * trained
    if own.rest:
        for shape in outer_linears(m).values():
            found.append(Trained(shape.out_features, shape.in_features, 1, own.dtype))
            found += [Trained(shape.out_features, 0, 1, own.dtype)] * shape.bias
    for part, layers in trained_groups(m, recipe):
        found += [] if part.passed_over else _weights(part, recipe, own.dtype, layers)
    return tuple(found)
