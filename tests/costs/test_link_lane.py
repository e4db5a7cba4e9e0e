"""What the cards exchange beside their kernels: what is hidden, and what is waited for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.costs.link_lane import Turn, lane_seconds
from advisor.costs.micro_step import queue_seconds

TURNS = st.lists(
    st.builds(
        Turn, st.floats(0, 10), st.floats(0, 10), st.integers(1, 5), st.floats(0, 5), st.floats(0, 5), st.floats(0, 5)
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([Turn(4.0, 0.0, 4, 0.5, 0.0, 0.0)], 4.5),  # the first gather alone
        ([Turn(4.0, 0.0, 4, 2.0, 0.0, 0.0)], 9.0),  # every gather: 2 + 3 x 2, then the last layer
        ([Turn(4.0, 0.0, 4, 0.0, 0.5, 0.0)], 4.5),  # the last reduction
        ([Turn(4.0, 0.0, 4, 0.0, 2.0, 0.0)], 9.0),  # after the first layer one by one
        ([Turn(4.0, 0.0, 4, 0.25, 0.5, 0.0)], 4.75),
        ([Turn(4.0, 0.0, 4, 0.0, 0.0, 0.5)], 4.5),
        ([Turn(1.0, 0.0, 1, 0.5, 0.0, 0.0), Turn(1.0, 0.0, 1, 0.5, 0.0, 0.0)], 2.5),
        ([Turn(1.0, 0.0, 1, 0.0, 2.0, 0.0), Turn(5.0, 0.0, 1, 0.0, 1.0, 0.0)], 7.0),
        ([Turn(1.0, 6.0, 1, 0.5, 0.0, 0.0)], 6.0),  # hidden by the host's launches
    ],
)
def test_one_gather_and_one_reduction_are_waited_for(turns: list[Turn], expected: float) -> None:
    assert lane_seconds(turns, overlaps=True) == pytest.approx(expected)


def test_without_overlap_all_is_waited_for() -> None:
    assert lane_seconds([Turn(4.0, 0.0, 4, 0.5, 0.25, 0.25)], overlaps=False) == 8.0


@given(TURNS, st.booleans())
def test_an_exchange_never_helps_and_costs_at_most_itself(turns: list[Turn], overlaps: bool) -> None:
    alone = queue_seconds([(one.card_s, one.launch_s) for one in turns])
    exchanged = sum((one.gather_s + one.reduce_s + one.between_s) * one.layers for one in turns)
    found = lane_seconds(turns, overlaps)
    assert alone - 1e-9 <= found <= alone + exchanged + 1e-9
    assert found <= lane_seconds(turns, overlaps=False) + 1e-9


def test_a_part_of_many_layers_is_as_many_parts() -> None:
    together = [Turn(8.0, 0.0, 8, 0.7, 0.9, 0.0)]
    apart = [Turn(1.0, 0.0, 1, 0.7, 0.9, 0.0)] * 8
    assert lane_seconds(together, True) == pytest.approx(lane_seconds(apart, True), rel=0.05)
