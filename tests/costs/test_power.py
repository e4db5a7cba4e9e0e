"""A power limit slows a card and bounds its energy."""

from __future__ import annotations

import pytest

from advisor.catalog.gpus import find_gpus
from advisor.costs.power import energy, powered_share
from advisor.interval import Interval

L4 = find_gpus("l4")[0]


def test_a_card_with_little_power_falls_short_of_its_rate() -> None:
    assert powered_share(L4, 0.0) == 1.0
    assert powered_share(L4.model_copy(update={"power_w": 0.0}), 2.0) == 1.0
    whole, half = (powered_share(L4.model_copy(update={"power_w": watts}), 2.0) for watts in (20.0, 5.0))
    assert whole < 1.0
    assert whole == pytest.approx(2 * half)


def test_energy_is_between_that_of_an_idle_card_and_its_limit() -> None:
    seconds = Interval(1.0, 2.0, 3.0)
    idle, busy = energy(seconds, 0.0, L4), energy(seconds, 1.0, L4)
    assert tuple(idle) == pytest.approx([0.2 * L4.power_w * s for s in seconds])
    assert busy.high == pytest.approx(3.0 * L4.power_w)
    assert all(low < high for low, high in zip(idle, busy, strict=True))
