"""What NCCL takes of a card, beside what was measured of it."""

from __future__ import annotations

from advisor.catalog.gpus import find_gpus
from advisor.costs.communicators import communication_bytes
from advisor.interval import Interval
from advisor.specs import Placement
from advisor.units import MIB


def taken(name: str, gpus: int, **at: object) -> Interval:
    return communication_bytes(find_gpus(name)[0], Placement.model_validate({"gpus": gpus, "sharding": "fsdp2", **at}))


def test_groups_of_a100s_take_what_was_measured() -> None:
    """Four A100s with NVLink: 544 MB for a group of two, 688 for a larger one (NVIDIA/nccl issue 964)."""
    for gpus, measured in ((2, 544 * MIB), (4, 688 * MIB)):
        found = taken("a100", gpus)
        assert found.low <= measured <= found.high
        assert 0.8 * measured < found.likely < 1.3 * measured


def test_more_lanes_and_neighbors_take_more_and_one_card_nothing() -> None:
    assert taken("a100", 1, sharding="none") == Interval.exact(0)
    assert taken("a100", 2).likely < taken("a100", 4).likely == taken("a100", 8).likely
    assert taken("h100", 8, link="pcie").likely < taken("h100", 8).likely
    assert taken("4090", 2).likely < taken("4090", 2, link="pcie").likely  # through the host: its memory
    assert taken("h100", 8).high - taken("a100", 8).high == 8 * 32 * MIB
    assert taken("mi300x", 8).likely > 0


def test_each_group_of_cards_has_its_own() -> None:
    one, three = taken("h100", 8), taken("h100", 16, nodes=2, sharding="hsdp", network_gbit=400)
    assert three.likely == 3 * one.likely
