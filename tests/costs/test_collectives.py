"""Links between cards, and NCCL's rings over them, beside what was measured of them."""

from __future__ import annotations

import pytest

from advisor.catalog.gpus import all_gpus, find_gpus
from advisor.costs.collectives import gradient_seconds, group_of, link_bytes_per_s, link_of, seconds
from advisor.engines.engine import Transfer
from advisor.errors import BadValue
from advisor.specs import GpuSpec, Placement

MIB = 2**20


def card(name: str) -> GpuSpec:
    return find_gpus(name)[0]


@pytest.mark.parametrize(
    ("name", "cards", "measured"),
    [("a100-80gb", 8, 235e9), ("h100", 8, 365.6e9), ("h100", 4, 363e9), ("b200", 8, 682e9), ("mi300x", 8, 313e9)],
)
def test_large_rings_are_as_fast_as_measured(name: str, cards: int, measured: float) -> None:
    """Source: github.com/stas00/ml-engineering, network/README.md."""
    found = link_bytes_per_s(card(name), Placement(gpus=cards, sharding="ddp"))
    assert found.low <= measured <= found.high * 1.001
    assert found.likely == pytest.approx(measured, rel=0.08)


@pytest.mark.parametrize(("mib", "measured"), [(1, 36e9), (16, 255e9), (64, 401e9), (128, 568e9), (1024, 723e9)])
def test_small_messages_wait_for_their_hops(mib: int, measured: float) -> None:
    """All-reduce of eight B200, "busbw" by message size (the same page)."""
    size = mib * MIB
    measured_s = 2 * 7 / 8 * size / measured
    found = gradient_seconds(size, Placement(gpus=8, sharding="ddp"), card("b200"))
    assert 0.7 * measured_s <= found.likely <= 1.1 * measured_s
    assert found.high >= 0.95 * measured_s or mib <= 16


def test_nodes_halve_a_large_all_reduce_although_their_links_are_18_times_slower() -> None:
    """Four nodes take 2.0 to 2.2 times one (the same page, EFA of 400 Gbit/s for each card)."""
    one = gradient_seconds(1024 * MIB, Placement(gpus=8, sharding="ddp"), card("b200"))
    four = gradient_seconds(1024 * MIB, Placement(gpus=32, nodes=4, sharding="ddp", network_gbit=400), card("b200"))
    assert 1.9 < four.likely / one.likely < 2.3
    assert four.low <= four.likely <= four.high


def test_the_link_is_what_the_board_has_unless_another_is_asked_for() -> None:
    two, four = Placement(gpus=2, sharding="ddp"), Placement(gpus=4, sharding="ddp")
    assert [link_of(card(name), two) for name in ("h100", "a6000", "3090", "rtx4090", "l40s")] == [
        "nvlink",
        "pcie",
        "host",
        "host",
        "pcie",
    ]
    bridged = two.model_copy(update={"link": "nvlink"})
    assert link_bytes_per_s(card("3090"), bridged).likely == 48e9
    with pytest.raises(BadValue, match="joins 2 cards"):
        link_bytes_per_s(card("3090"), four.model_copy(update={"link": "nvlink"}))
    with pytest.raises(BadValue, match="is not on this card"):
        link_bytes_per_s(card("rtx4090"), bridged)
    slower = link_bytes_per_s(card("h100"), four.model_copy(update={"link": "host"}))
    assert slower.high < link_bytes_per_s(card("h100"), four.model_copy(update={"link": "pcie"})).likely


def test_every_card_has_a_link() -> None:
    for gpu in all_gpus():
        low, likely, high = link_bytes_per_s(gpu, Placement(gpus=2, sharding="ddp"))
        assert 1e9 < low <= likely <= high < 1e12


def test_nodes_without_a_network_are_refused() -> None:
    with pytest.raises(BadValue, match="Gbit/s leave a node"):
        gradient_seconds(MIB, Placement(gpus=16, nodes=2, sharding="ddp"), card("h100"))


def test_who_takes_part() -> None:
    hybrid = Placement(gpus=32, nodes=4, sharding="hsdp")
    assert group_of(Transfer("gather", 1), hybrid) == (8, 1)
    assert group_of(Transfer("reduce", 1, among="copies"), hybrid) == (4, 4)
    assert group_of(Transfer("gather", 1), Placement(gpus=32, nodes=4, sharding="fsdp2")) == (32, 4)
    assert group_of(Transfer("reduce", 1, among="all"), Placement(gpus=32, nodes=4, sharding="ddp")) == (32, 4)


def test_more_bytes_more_calls_and_more_cards_take_longer() -> None:
    def of(transfer: Transfer, cards: int) -> float:
        return seconds(transfer, Placement(gpus=cards, sharding="fsdp2"), card("rtx4090")).likely

    base = of(Transfer("gather", 8 * MIB), 4)
    assert base < of(Transfer("gather", 8 * MIB, 2), 4) < 2 * base
    assert base < of(Transfer("gather", 8 * MIB), 8) < of(Transfer("reduce", 8 * MIB), 8)
    assert of(Transfer("gather", 0), 4) == 0
