"""The allocator as plain functions serves every request as the class does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.costs import compiled
from advisor.costs.allocator import CachingAllocator, OutOfMemory
from advisor.costs.machine_code import array
from advisor.units import MIB

SIZES = (512, 5000, MIB, MIB + 1, 3 * MIB, 9 * MIB, 10 * MIB, 23 * MIB + 7, 64 * MIB)
STREAMS = st.lists(st.tuples(st.booleans(), st.integers(0, len(SIZES) - 1), st.integers(0, 1000)), max_size=80)


def _counters(state: list[int]) -> tuple[int, ...]:
    names = ("ALLOCATED", "PEAK_ALLOCATED", "RESERVED", "PEAK_RESERVED", "RELEASES")
    return tuple(int(state[getattr(compiled, name)]) for name in names)


@settings(max_examples=150, deadline=None)
@given(STREAMS, st.booleans(), st.integers(0, 300))
def test_counters_are_those_of_the_class(stream: list[tuple[bool, int, int]], expandable: bool, mib: int) -> None:
    capacity = 0 if expandable else mib * MIB
    state, reference = compiled.allocator(400, 100, expandable, capacity), CachingAllocator(expandable, capacity)
    live: list[int] = []
    for key, (frees, slot, which) in enumerate(stream):
        freed = live.pop(which % len(live)) if frees and live else None
        code = 2 * key if freed is None else 2 * freed + 1
        served = compiled.play(state, array([code]), array([slot]), array(SIZES), 0)
        try:
            if freed is None:
                reference.allocate(key, SIZES[slot])
                live.append(key)
            else:
                reference.release(freed)
        except OutOfMemory:
            assert not served
            return
        assert served
        of_class = (reference.allocated_bytes, reference.peak_allocated_bytes, reference.reserved_bytes)
        assert _counters(state) == (*of_class, reference.peak_reserved_bytes, reference.releases)


def test_small_requests_can_be_left_out() -> None:
    state = compiled.allocator(20, 4)
    state[compiled.LARGE_ONLY] = 1
    codes, slots = array([0, 2, 1]), array([0, 1, 0])
    assert compiled.play(state, codes, slots, array([MIB, 2 * MIB]), 0)
    assert state[compiled.ALLOCATED] == 2 * MIB
    assert list(compiled.living(state, array([0, 1]), 0)) == [1]
    compiled.release(state, array([0, 1]))
    assert state[compiled.ALLOCATED] == 0


def test_an_emptied_cache_keeps_segments_in_use() -> None:
    state = compiled.allocator(20, 4)
    sizes = array([30 * MIB, 50 * MIB])
    compiled.play(state, array([0, 2, 1]), array([0, 1, 0]), sizes, 0)
    compiled.empty_cache(state)
    assert state[compiled.RESERVED] == 50 * MIB
    assert state[compiled.PEAK_RESERVED] == 80 * MIB
