"""PyTorch's DistributedDataParallel, whose buckets are known, on several cards or in one process alone.

Alone its reducer is real, the other cards are not: the fake process group's work has no future, for which the reducer
waits, so a communication hook takes its place and hands each bucket back. The buckets stay those of the first step:
PyTorch orders them anew in the second, for which it reads values, and their sum stays the same.
Source: PyTorch 2.13, csrc/distributed/c10d/reducer.cpp; the hooks allocate nothing, as the built-in one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from advisor.specs import Recipe


def replicated(model: Any, recipe: Recipe, buckets: dict[int, torch.Tensor], alone: bool) -> Any:
    """The model as accelerate wraps it with the Trainer's arguments; `buckets` gets those that are reduced.

    Unused parameters are looked for where no layers are checkpointed (transformers 5.23, trainer.py). Left out `alone`,
    as they read values: that search, whose map has 4 bytes a parameter tensor, and the broadcast of the weights.
    """
    search = not alone and not recipe.gradient_checkpointing
    copied: Any = DistributedDataParallel(model, init_sync=not alone, find_unused_parameters=search)
    # A lambda, as the annotations of a function are checked.
    copied.register_comm_hook(None, lambda _, bucket: _reduced(buckets, bucket, alone))
    if alone:
        copied.reducer = _FirstBuckets(copied.reducer)
    return copied


def _reduced(buckets: dict[int, torch.Tensor], bucket: Any, alone: bool) -> Any:
    """A bucket with the mean of all ranks, or as it is."""
    if bucket.index() == 0:  # the first one of a step; in the second step buckets are made anew
        buckets.clear()
    buckets[bucket.index()] = bucket.buffer()
    if not alone:
        return allreduce_hook(distributed.distributed_c10d._get_default_group(), bucket)
    found: Any = torch.futures.Future()
    found.set_result(bucket.buffer())
    return found


class _FirstBuckets:
    """A reducer that does not make its buckets anew."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return (lambda: False) if name == "_rebuild_buckets" else getattr(self._reducer, name)
