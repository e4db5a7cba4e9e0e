"""PyTorch's DistributedDataParallel in one process: its reducer is real, the other cards are not.

The fake process group's work has no future, for which the reducer waits; a communication hook takes its place and hands
each bucket back. What the default hook does beside, a division in place, allocates nothing. The buckets stay those of
the first step: PyTorch orders them anew in the second, for which it reads values, and their sum stays the same.
Source: PyTorch 2.13, csrc/distributed/c10d/reducer.cpp, default_comm_hooks.cpp.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

def replicated(model: Any, buckets: dict[int, torch.Tensor]) -> Any:
    """The model as accelerate wraps it, without the broadcast of its weights; `buckets` gets those that are reduced.

    Left out, as it reads values: the search for unused parameters, which the Trainer switches on where no layers are
    checkpointed (transformers 5.23, trainer.py) and whose map has 4 bytes a parameter tensor.
    """
    copied = DistributedDataParallel(model, init_sync=False)
    # A lambda, as the annotations of a function are checked.
    copied.register_comm_hook(None, lambda _, bucket: _done(buckets.setdefault(bucket.index(), bucket.buffer())))
    copied.reducer = _FirstBuckets(copied.reducer)
    return copied


class _FirstBuckets:
    """A reducer that does not make its buckets anew."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return (lambda: False) if name == "_rebuild_buckets" else getattr(self._reducer, name)


def _done(gradients: torch.Tensor) -> Any:
    found: Any = torch.futures.Future()
    found.set_result(gradients)
    return found
