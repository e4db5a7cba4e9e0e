"""The queue of kernels that card and CPU share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.costs.micro_step import queue_seconds

LOADS = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([(5.0, 1.0)], 5.0),
        ([(1.0, 5.0)], 5.0),
        ([(5.0, 1.0), (1.0, 3.0)], 6.0),  # the CPU ran ahead while the card was busy
        ([(1.0, 5.0), (5.0, 1.0)], 10.0),  # the card had to wait for the second part
    ],
)
def test_the_card_waits_for_the_cpu_and_not_the_other_way(loads: list[tuple[float, float]], expected: float) -> None:
    assert queue_seconds(loads) == expected


@given(LOADS, st.integers(0, 7), st.floats(0, 1))
def test_the_queue_is_bounded_and_more_work_is_never_faster(
    loads: list[tuple[float, float]], index: int, extra: float
) -> None:
    card_s, cpu_s = sum(a for a, _ in loads), sum(b for _, b in loads)
    total = queue_seconds(loads)
    assert max(card_s, cpu_s) - 1e-9 <= total <= card_s + cpu_s + 1e-9
    more = list(loads)
    a, b = more[index % len(loads)]
    more[index % len(loads)] = (a + extra, b)
    assert total <= queue_seconds(more) + 1e-9 <= total + extra + 2e-9
