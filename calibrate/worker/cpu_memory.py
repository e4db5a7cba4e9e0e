"""What a step allocates on a CPU: torch.profiler's allocation events, plus the tensors that were alive before."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from advisor.blocks import block_bytes

MEMORY_EVENT = "[memory]"  # torch.profiler's name of an allocation or release
AFTER_FORWARD = "calibrate: after forward"


class MemoryReading(NamedTuple):
    """Bytes of one step; None for what the device does not have."""

    peak_bytes: int
    static_bytes: int
    after_forward_bytes: int
    """0 when the end of the forward pass was not marked."""
    reserved_bytes: int | None
    device_bytes: int | None
    exact_bytes: int | None
    """The peak without rounding."""


class CpuWatch:
    """Records every allocation of the CPU from its construction until `stop`.

    torch.profiler does not report the release of a block that is older than itself, so what was alive before counts
    until the end. A training step in its steady state releases none of it.
    """

    def __init__(self) -> None:
        gc.collect()
        self._before = [storage.nbytes() for storage in living_storages()]
        self._seen = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._seen.__enter__()

    def stop(self) -> MemoryReading:
        """The most bytes needed; after the forward pass 0, unless the step marked its end."""
        self._seen.__exit__(None, None, None)
        sizes = list(_allocations(self._seen))
        static, exact = sum(map(rounded, self._before)), sum(self._before)
        blocks = _heights(static, [rounded(size) if size else None for size in sizes])
        return MemoryReading(
            peak_bytes=blocks.peak,
            static_bytes=static,
            after_forward_bytes=blocks.at_mark,
            reserved_bytes=None,
            device_bytes=None,
            exact_bytes=_heights(exact, sizes).peak,
        )


class _Heights(NamedTuple):
    peak: int
    at_mark: int


def _heights(live: int, sizes: list[int | None]) -> _Heights:
    """Most bytes that were alive, and those alive at the mark (None among the sizes)."""
    peak, at_mark = live, 0
    for size in sizes:
        if size is None:
            at_mark = live
        else:
            live += size
            peak = max(peak, live)
    return _Heights(peak, at_mark)


def mark_after_forward() -> None:
    """Note in the profile that the forward pass is over."""
    with record_function(AFTER_FORWARD):
        pass


def _allocations(seen: Any) -> Iterator[int | None]:
    """Sizes of allocations, negative for releases, in order; None where the forward pass is over."""
    found = [event for event in seen.profiler.kineto_results.events() if event.name() in (MEMORY_EVENT, AFTER_FORWARD)]
    for event in sorted(found, key=lambda one: one.start_ns()):
        yield event.nbytes() if event.name() == MEMORY_EVENT else None


def rounded(size_bytes: int) -> int:
    """Bytes rounded up to whole blocks, also for a release."""
    blocks = block_bytes(abs(size_bytes))
    return blocks if size_bytes >= 0 else -blocks


def living_storages(without: tuple[type, ...] = ()) -> list[Any]:
    """Every storage held by a tensor known to Python, once each; tensors of the kinds `without` are passed over."""
    found: dict[int, Any] = {}
    for thing in gc.get_objects():
        if (
            issubclass(type(thing), torch.Tensor)
            and not issubclass(type(thing), without)
            and thing.layout == torch.strided
        ):
            storage = thing.untyped_storage()
            found[storage._cdata] = storage
    return list(found.values())
