"""The caching allocator's rules, by hand-worked cases and by what must hold for any stream."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.costs.allocator import CachingAllocator, OutOfMemory, replay, rounded_request, segment_bytes
from advisor.units import MIB

SIZES = st.integers(1, 64 * MIB)
STREAMS = st.lists(st.tuples(st.booleans(), SIZES, st.integers(0, 1000)), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("asked", "served", "taken"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 11 * MIB, 12 * MIB),
    ],
)
def test_sizes_of_blocks_and_segments(asked: int, served: int, taken: int) -> None:
    assert rounded_request(asked) == served
    assert segment_bytes(served) == taken
    assert replay([(0, asked)]).peak_reserved_bytes == taken


def test_small_requests_share_a_segment() -> None:
    held = replay((key, 512 * 1024) for key in range(4))
    assert (held.peak_allocated_bytes, held.peak_reserved_bytes, held.segments) == (2 * MIB, 2 * MIB, 1)


def test_what_is_left_of_a_large_block_is_split_off_only_above_a_mebibyte() -> None:
    asked = [(0, 12 * MIB), (0, 0), (1, 11 * MIB), (2, 3 * MIB)]  # 1 MiB left: not worth a block
    assert replay(asked).peak_allocated_bytes == (12 + 3) * MIB
    assert replay(asked, expandable_segments=True).peak_allocated_bytes == (11 + 3) * MIB
    split = replay([(0, 14 * MIB), (0, 0), (1, 11 * MIB), (2, 3 * MIB)])
    assert (split.peak_allocated_bytes, split.peak_reserved_bytes) == (14 * MIB, 14 * MIB)


def test_free_neighbours_become_one_block() -> None:
    events = [(0, 8 * MIB), (1, 8 * MIB), (0, 0), (1, 0), (2, 16 * MIB)]
    assert replay(events).peak_reserved_bytes == 20 * MIB


def test_a_hole_that_is_too_small_fragments() -> None:
    events = [(0, 30 * MIB), (1, 30 * MIB), (0, 0), (2, 32 * MIB)]
    assert replay(events).peak_reserved_bytes == 92 * MIB
    assert replay(events).peak_allocated_bytes == 62 * MIB


def test_expandable_segments_grow_over_the_hole_at_their_end() -> None:
    events = [(0, 30 * MIB), (0, 0), (1, 50 * MIB)]
    assert replay(events).peak_reserved_bytes == 80 * MIB
    assert replay(events, expandable_segments=True).peak_reserved_bytes == 60 * MIB


def test_the_cache_is_emptied_before_memory_runs_out() -> None:
    events = [(0, 30 * MIB), (0, 0), (1, 50 * MIB)]
    held = replay(events, capacity_bytes=60 * MIB)
    assert (held.peak_reserved_bytes, held.releases) == (50 * MIB, 1)
    with pytest.raises(OutOfMemory):
        replay(events, capacity_bytes=49 * MIB)


@settings(max_examples=60, deadline=None)
@given(STREAMS, st.booleans())
def test_blocks_never_overlap_and_everything_comes_back(stream: list[tuple[bool, int, int]], expandable: bool) -> None:
    a = CachingAllocator(expandable)
    live: list[int] = []
    for key, (frees, size, which) in enumerate(stream):
        if frees and live:
            a.release(live.pop(which % len(live)))
        else:
            a.allocate(key, size)
            live.append(key)
        assert a.reserved_bytes >= a.allocated_bytes
        places = sorted((block.address, block.size) for block, _ in a._in_use.values())
        assert all(start + size <= other for (start, size), (other, _) in itertools.pairwise(places))
    for key in live:
        a.release(key)
    assert a.allocated_bytes == 0
    a.empty_cache()
    assert a.reserved_bytes == 0


@given(SIZES, st.integers(1, 40))
def test_equal_sizes_leave_no_holes(size: int, count: int) -> None:
    rounds = [(key + 100 * turn, size * made) for turn in range(3) for made in (1, 0) for key in range(count)]
    once = [(key, size) for key in range(count)]
    assert replay(rounds).peak_reserved_bytes == replay(once).peak_reserved_bytes
