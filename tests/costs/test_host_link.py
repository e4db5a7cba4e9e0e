"""Copies beside the kernels: what they add, and that the bus is known for every class of cards."""

from __future__ import annotations

import pytest

from advisor.catalog.gpus import all_gpus, find_gpus
from advisor.costs.device import profile_for
from advisor.costs.host_link import PCIE3, PCIE4, PCIE5, Load, host_link, with_copies
from advisor.costs.micro_step import micro_step_time
from advisor.tape.program import Launches, PartKernels


@pytest.mark.parametrize(
    ("load", "card_s"),
    [
        (Load(2.0, 0.5, 0.0, 0.0), 2.0),
        (Load(2.0, 0.5, 10.0, 0.0), 2.0),
        (Load(2.0, 0.5, 40.0, 0.0), 4.0),
        (Load(2.0, 0.5, 10.0, 5.0), 2.5),
    ],
)
def test_a_part_takes_the_longer_of_its_kernels_and_its_copies_after_the_first(load: Load, card_s: float) -> None:
    assert with_copies([load], (1.0, 1.0), 10.0) == [(card_s, 0.5)]
    assert with_copies([Load(2.0, 0.5, 0.0, 0.0)], (2.0, 3.0), 10.0) == [(4.0, 1.5)]


def test_every_card_has_a_bus() -> None:
    assert PCIE3.likely < PCIE4.likely < PCIE5.likely
    assert host_link("ampere hbm") == PCIE4
    for gpu in all_gpus():
        low, likely, high = profile_for(gpu).host_bytes_per_s
        assert 6e9 < low < likely < high < 63e9


def test_a_slow_copy_is_waited_for_and_a_fast_one_is_not() -> None:
    card = find_gpus("a100-80gb")[0]
    product = ("matmul", "bfloat16", 2.0 * 4096**3, 3.0 * 2 * 4096**2, (4096, 4096, 4096))

    def seconds(moved: float, kind: str) -> float:
        copy = (kind, "bfloat16", 0.0, moved, (0, 0, 0))
        part = PartKernels(4, [(product, 10), (copy, 1)], Launches(11, 0, 0), 0.0)
        return micro_step_time([part], card, profile_for(card)).seconds.likely

    alone = seconds(0.0, "to_host")
    assert seconds(1e6, "to_host") == alone < seconds(1e6, "from_host") < 1.1 * alone
    assert seconds(1e9, "to_host") > 5 * alone
