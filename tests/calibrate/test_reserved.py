"""A traced step, replayed through the allocator's simulation."""

from __future__ import annotations

import pytest

from advisor.costs.allocator import OutOfMemory
from advisor.units import MIB
from calibrate.reserved import replayed, smallest_capacity_bytes
from calibrate.timeline import Allocation, Timeline


def _allocation(mebibytes: int, category: str) -> Allocation:
    return Allocation(mebibytes * MIB, category, "op", "module", (mebibytes,), "uint8")


def _timeline() -> Timeline:
    """40 MiB of weights, 10 of states; a step makes 30, then 32 MiB, and keeps a gradient of 12 until its end."""
    made = [(40, "base_weights"), (10, "optimizer_states"), (30, "forward"), (12, "gradients"), (32, "backward")]
    timeline = Timeline([_allocation(size, category) for size, category in made])
    timeline.moves = [0, 1, 2, -3, 3, 4, -5, -4]
    timeline.marks = [(2, "forward"), (4, "backward"), (7, "optimizer")]
    return timeline


def test_replay_follows_loading_and_three_steps() -> None:
    held = replayed(_timeline())
    # 40 + 30 (later 12, then the states beside it) + 32 + a second 12 or 30 where the states took the hole
    assert held.peak_allocated_bytes == (40 + 10 + 12 + 32) * MIB
    assert held.peak_reserved_bytes >= held.peak_allocated_bytes
    assert held.end_reserved_bytes == held.peak_reserved_bytes


def test_the_smallest_capacity_suffices_and_less_does_not() -> None:
    timeline = _timeline()
    least = smallest_capacity_bytes(timeline)
    whole = replayed(timeline)
    assert whole.peak_allocated_bytes <= least <= whole.peak_reserved_bytes
    assert replayed(timeline, capacity_bytes=least).peak_reserved_bytes <= least
    with pytest.raises(OutOfMemory):
        replayed(timeline, capacity_bytes=whole.peak_allocated_bytes - MIB)
