"""What the allocator holds beyond the tensors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.costs.fragmentation import FEW, UNSPLIT_SHARE, counted_bytes, held_bytes, shares_of
from advisor.interval import Interval
from advisor.specs import METHODS, Recipe

RECIPES = [
    Recipe(method=method, gradient_checkpointing=checkpointing, expandable_segments=expandable)
    for method in METHODS
    for checkpointing in (False, True)
    for expandable in (False, True)
]


@given(st.sampled_from(RECIPES), st.floats(0, 1e12), st.floats(0, 1e12))
def test_more_is_held_than_allocated_and_less_is_needed_than_held(recipe: Recipe, static: float, moving: float) -> None:
    peak, lower = Interval.exact(static + moving), Interval.exact(static + moving / 2)
    for parts in ((peak, lower), (lower, peak)):
        check_held(recipe, parts, static, peak)


def check_held(recipe: Recipe, parts: tuple[Interval, Interval], static: float, peak: Interval) -> None:
    reserved, needed = held_bytes(recipe, parts, int(static))
    assert peak.likely <= needed.low <= needed.likely <= needed.high
    assert needed.likely <= reserved.likely
    assert needed.high <= reserved.high


@given(st.sampled_from(RECIPES), st.floats(0, 1e12), st.floats(0, 1e12))
def test_whole_blocks_count_as_allocated_but_never_more_than_is_held(
    recipe: Recipe, static: float, moving: float
) -> None:
    peak = Interval.around(static + moving, 0.02, 0.02)
    needed = held_bytes(recipe, (peak, peak), int(static)).needed
    counted = counted_bytes(peak, needed, recipe)
    assert counted[:2] == peak[:2]
    assert peak.high <= counted.high <= needed.high
    assert counted.high <= peak.high * (1 if recipe.expandable_segments else 1 + UNSPLIT_SHARE)


def test_the_rests_of_blocks_are_counted_where_there_is_room_for_them() -> None:
    peak, held = Interval.around(3e9, 0.02, 0.02), Interval.around(4e9, 0.02, 0.02)
    assert counted_bytes(peak, held, RECIPES[0]).high == peak.high * (1 + UNSPLIT_SHARE)
    assert counted_bytes(peak, peak, RECIPES[0]) == peak


def test_static_bytes_leave_no_holes() -> None:
    peak = Interval(1e9, 1e9, 1e9)
    assert held_bytes(RECIPES[0], (peak, peak), 10**9) == (peak, peak)


def test_expandable_segments_waste_less() -> None:
    for recipe in RECIPES:
        plain = recipe.model_copy(update={"expandable_segments": False})
        for at_head in (False, True):
            assert shares_of(recipe, at_head).needed.high <= shares_of(plain, at_head).needed.high


def test_a_measured_factor_scales_what_is_reserved_alone() -> None:
    peak, none = Interval.exact(2e9), Interval.exact(1e9)
    plain, doubled = held_bytes(RECIPES[0], (peak, none), 10**9), held_bytes(RECIPES[0], (peak, none), 10**9, 2.0)
    assert doubled.reserved.likely - 2e9 == 2 * (plain.reserved.likely - 2e9)
    assert doubled.needed == plain.needed


def test_the_more_lengths_there_are_the_more_is_reserved() -> None:
    for recipe in RECIPES:
        if recipe.expandable_segments:
            continue
        shares = [shares_of(recipe, True, lengths=count) for count in (2, FEW, FEW + 1, 4096)]
        assert shares[0::2] == shares[1::2]
        likely = [one.reserved.likely for one in shares[::2]]
        assert likely == sorted(likely)
        assert all(one.needed.high <= one.reserved.high for one in shares)


def test_with_expandable_segments_no_less_is_reserved_than_needed() -> None:
    for recipe in RECIPES:
        if recipe.expandable_segments:
            reserved, needed = shares_of(recipe, False, lengths=100)
            assert all(low <= high for low, high in zip(needed, reserved, strict=True))
            assert needed == shares_of(recipe, False).needed
