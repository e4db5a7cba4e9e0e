"""How several cards share one job: one file for each engine, by `Placement.sharding`.

An engine says which dtypes a layer's weights have while they compute, what a rank holds from step to step, and what
comes and goes beside the tape's tensors: gathered weights, gradients on their way.
"""

from __future__ import annotations

import importlib
from functools import lru_cache

from advisor.decoders.stack import Stack
from advisor.decoders.units import units_of
from advisor.engines.engine import Engine
from advisor.specs import ModelSpec, Placement, Recipe, Sharding

ENGINES: dict[Sharding, str] = {
    "ddp": "ddp.Ddp",
    "fsdp1": "fsdp1.Fsdp1",
    "fsdp2": "fsdp2.Fsdp2",
    "hsdp": "fsdp2.Fsdp2",
    "zero1": "zero.Zero1",
    "zero2": "zero.Zero2",
    "zero3": "zero3.Zero3",
}
"""File and class, loaded when asked for."""


def engine_kind(sharding: Sharding) -> type[Engine]:
    """The class of an engine, loaded when it is asked for."""
    file, name = ENGINES[sharding].split(".")
    kind: type[Engine] = getattr(importlib.import_module(f"{__name__}.{file}"), name)
    return kind


@lru_cache(maxsize=256)
def engine_for(m: ModelSpec, recipe: Recipe, placement: Placement, stack: Stack) -> Engine | None:
    """The engine of a placement; None for one card."""
    if placement.gpus == 1:
        return None
    return engine_kind(placement.effective_sharding)(m, recipe, placement, units_of(m, recipe, stack))
