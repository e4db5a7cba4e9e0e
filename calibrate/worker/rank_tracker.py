"""Records what a rank of several allocates and frees: also what FSDP does to the storages of its buffers.

Both FSDPs free a buffer by resizing its storage to nothing and fill it again by resizing it back; no operation says so.
Source: PyTorch 2.13, distributed/fsdp/_fully_shard/_fsdp_param.py, free_storage, alloc_storage; distributed/utils.py,
_free_storage and _alloc_storage. A DTensor is only the shell of its part, so operations on it are left to it, and what
it does with its part is recorded.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from advisor.blocks import block_bytes
from calibrate.timeline import Allocation
from calibrate.worker.tracker import AllocationTracker


class RankTracker(AllocationTracker):
    """Sees storages change their size."""

    def __enter__(self) -> RankTracker:
        self._resize = torch.UntypedStorage.resize_
        tracker = self

        def resize_(storage: Any, size: int) -> Any:
            tracker._released(storage)
            found = tracker._resize(storage, size)
            tracker._grown(storage)
            return found

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment]
        super().__enter__()
        return self

    def __exit__(self, *stop: Any) -> None:
        super().__exit__(*stop)
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(one, DTensor) for one in types):
            return NotImplemented
        return super().__torch_dispatch__(func, types, args, kwargs)

    def add(self, tensor: torch.Tensor, category: str, module: str) -> None:
        """Count a tensor that is alive before the step: of a DTensor this rank's part."""
        super().add(tensor.to_local() if isinstance(tensor, DTensor) else tensor, category, module)

    def _released(self, storage: Any) -> None:
        """The bytes of a storage are given back, whether it stays or not."""
        known = self._live.pop(storage._cdata, None)
        if known is not None:
            self.timeline.moves.append(-known[0] - 1)

    def _grown(self, storage: Any) -> None:
        size_bytes, key = block_bytes(storage.nbytes()), storage._cdata
        if not size_bytes:
            return
        (phase, module), timeline = self._where(), self.timeline
        index = len(timeline.allocations)
        shape = (storage.nbytes(),)
        timeline.allocations.append(Allocation(size_bytes, phase, "resize_", module, shape, "uint8", shape[0]))
        timeline.moves.append(index)
        self._live[key] = (index, weakref.ref(storage, self._on_release(key, index)))
