"""A model as accelerate spreads it over several cards, within a process group that is there: real, or fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch

from advisor.specs import Placement, Recipe
from calibrate.worker.build import autocast
from calibrate.worker.replicated import replicated
from calibrate.worker.sharded import sharded, store_in


class Spread(NamedTuple):
    """A model as its engine runs it; `unsynced` is around a micro-batch whose gradients are not reduced.

    `buckets` of gradients stand from step to step; they are known once gradients have been reduced.
    """

    forward: Callable[..., Any]
    unsynced: Callable[[], AbstractContextManager[Any]]
    buckets: Mapping[int, torch.Tensor]


def spread_over(model: Any, recipe: Recipe, placement: Placement, device: str = "cpu", alone: bool = False) -> Spread:
    """The model as accelerate prepares it for the placement: by ddp, fsdp2 or hsdp.

    `alone`: the process group is fake, and so are the tensors.
    """
    if placement.copies_model:
        buckets: dict[int, torch.Tensor] = {}
        copied = replicated(model, recipe, buckets, alone)

        def forward(**inputs: Any) -> Any:
            with autocast(recipe, device):
                return copied(**inputs)

        return Spread(forward, copied.no_sync, buckets)
    if recipe.is_quantized:
        store_in(model, getattr(torch, recipe.base_dtype))
    model = sharded(model, recipe, placement, device)
    return Spread(model, lambda: _unsynced(model), {})


@contextmanager
def _unsynced(model: Any) -> Iterator[None]:
    """accelerate 1.15, accelerator.py, no_sync."""
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
