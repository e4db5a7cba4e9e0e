"""Seconds of a collective between the cards of a job: NCCL's own model of its rings, over the links that a card has.

    ring        every card sends (n - 1) / n of the data, twice for an all-reduce, and waits for as many hops
    two levels  a ring through several nodes crosses each boundary on as many network ports as a node has cards
    tree        an all-reduce between nodes may wait for fewer hops

Sources: NVIDIA/nccl, src/graph/tuning.cc, ncclTopoTuneModel (latency, bandwidth of rings and trees), topo.h
(bandwidth of a link), topo.cc (PCI Express: width x speed / 80); measured beside it: stas00/ml-engineering,
network/README.md.
Ignores: multiprocessors and memory traffic that NCCL's kernels take from others, congestion, and cards that are late.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log2
from typing import NamedTuple

from advisor.costs.device import card_class
from advisor.costs.host_link import bus_generation
from advisor.engines.engine import Transfer
from advisor.errors import BadValue
from advisor.interval import Interval
from advisor.specs import GpuSpec, Placement

NVLINK_BYTES_PER_S = (("10.0", 40.1e9), ("9.0", 20.6e9), ("8.6", 12.0e9), ("7.0", 20.0e9), ("6.0", 18.0e9))
"""Of one link each way, from this compute capability on (topo.h, ncclTopoNVLinkBw)."""
MOST_OF_8_0 = 235e9
"""A ring of A100s (tuning.cc)."""
XGMI_BYTES_PER_S = Interval(44.7e9, 46.0e9, 47.7e9)
"""Of one of AMD's links, each to another card: 47.7 between two MI300X, 313 between eight over seven (the README)."""
PCIE_BYTES_PER_S = {3: 12e9, 4: 24e9, 5: 48e9}
"""Sixteen lanes, by generation."""

NVLINK_SHARES = (0.70, 1.0, 1.0)
"""Of NCCL's figure, of which large messages get all: eight B200 reduce 64 MiB in 293 us, of which 41 are latency."""
IN_SWITCH = 1.25
"""Of an all-reduce that the switch adds up: 473 of 371 GB/s on H100s, 846 of 722 on B200s."""
PCIE_SHARES = (0.53, 1.0, 1.17)
"""12.7 of 24 GB/s between four cards, 24.5 between six (tinygrad/open-gpu-kernel-modules); copies of 56 of 48 GB/s
(voipmonitor/rtx6kpro, hardware/pcie-bandwidth.md)."""
HOST_SHARES = (0.3, 0.65, 0.75)
"""Through the host's memory: 28 of 48 GB/s between eight RTX 5090, 35 between four (NVIDIA/nccl issue 1639); copies of
3.3 to 5.6 of 12 on a Threadripper of 2018 (forum.level1techs.com/t/185531)."""
NETWORK_BYTES_PER_GBIT = 0.12e9
NETWORK_SHARES = (0.73, 1.0, 1.0)
"""12.0 GB/s per 100 Gbit/s (topo.h); EFA reaches 36.5 of 48 (the README), two nodes of H200 NVL 35
(kubernetes.recipes, nccl-all-reduce-perf-benchmark-multi-node)."""

SIMPLE_S, LL128_S = 8.4e-6, 14.0e-6
"""Before the first byte, by protocol."""
LL128_SHARE, TREE_SHARE = 0.92, 0.9
NVLINK_HOP_S, PCIE_HOP_S, NETWORK_HOP_S = (3.4e-6, 1.9e-6), (5.7e-6, 2.5e-6), (14.0e-6, 4.0e-6)
"""Of one step of a ring: by Simple, by LL128, which runs over NVLink alone."""


class Group(NamedTuple):
    """The cards of one collective, and the nodes that they are spread over."""

    ranks: int
    nodes: int


def group_of(transfer: Transfer, placement: Placement) -> Group:
    """Who takes part."""
    shards = placement.shards
    if transfer.among == "copies":
        copies = placement.gpus // shards
        return Group(copies, min(copies, placement.nodes))
    if transfer.among == "shards" and shards > 1:
        return Group(shards, -(-shards // placement.node_gpus))
    return Group(placement.gpus, placement.nodes)


def link_of(gpu: GpuSpec, placement: Placement) -> str:
    """The cards' way to each other inside a node: what was asked for, or the fastest that their board has.

    A bridge between two cards is sold apart, and is there where it is asked for.
    """
    if placement.link != "auto":
        return placement.link
    if gpu.links and not gpu.link_cards:
        return "nvlink"
    return "pcie" if gpu.peer_to_peer else "host"


def link_bytes_per_s(gpu: GpuSpec, placement: Placement) -> Interval:
    """Bytes per second of each card in a ring inside a node, by NCCL's convention ("busbw").

    Raises BadValue where the card has no such link.
    """
    link, cards = link_of(gpu, placement), placement.node_gpus
    if link == "nvlink":
        if not gpu.links or (gpu.link_cards and cards > gpu.link_cards):
            why = f"joins {gpu.link_cards} cards" if gpu.links else "is not on this card"
            raise BadValue("--link", "nvlink", f"it {why} ({gpu.name}, {cards} in a node); use --link pcie")
        if gpu.rocm:
            return XGMI_BYTES_PER_S.times(min(max(cards - 1, 1), gpu.links))
        each = next(rate for since, rate in NVLINK_BYTES_PER_S if _number(gpu.compute_capability) >= _number(since))
        rate = gpu.links * each
        return _shared(min(rate, MOST_OF_8_0) if gpu.compute_capability == "8.0" else rate, NVLINK_SHARES)
    rate = PCIE_BYTES_PER_S[bus_generation(card_class(gpu))]
    return _shared(rate, PCIE_SHARES if link == "pcie" else HOST_SHARES)


def _number(capability: str) -> tuple[int, ...]:
    return tuple(map(int, (capability or "6.0").split(".")))


def _shared(rate: float, shares: tuple[float, float, float]) -> Interval:
    return Interval(*(rate * share for share in shares))


def network_bytes_per_s(placement: Placement) -> Interval:
    """Of each card's way out of its node. Raises BadValue where it is not known."""
    if not placement.network_gbit:
        raise BadValue("--network", placement.network_gbit, "say how many Gbit/s leave a node for each of its GPUs")
    return _shared(placement.network_gbit * NETWORK_BYTES_PER_GBIT, NETWORK_SHARES)


@lru_cache(maxsize=4096)
def seconds(transfer: Transfer, placement: Placement, gpu: GpuSpec) -> Interval:
    """Time of the calls of a transfer, one after the other; nothing for a group of one."""
    group = group_of(transfer, placement)
    if group.ranks == 1 or not transfer.bytes:
        return Interval.exact(0.0)
    rates, hops, local = _ring(group, placement, gpu)
    reduces = transfer.kind == "reduce"
    sent = (2 if reduces else 1) * (group.ranks - 1) / group.ranks * transfer.bytes
    ring = (2 if reduces else 1) * (group.ranks - 1), (2 if reduces else 1) * (group.nodes - 1)
    times = []
    for rate in reversed(rates):
        simple, fast = (_latency(p, ring, hops) * transfer.calls for p in (0, 1))
        found = [simple + sent / rate]
        if local == "nvlink" and not gpu.rocm:
            found.append(fast + sent / (rate * LL128_SHARE))
        if reduces and group.nodes > 1:
            tree = 2 * (group.ranks // group.nodes - 1 + ceil(log2(group.nodes))), 2 * ceil(log2(group.nodes))
            found.append(_latency(0, tree, hops) * transfer.calls + sent / (rate * TREE_SHARE))
        times.append(min(found))
    if reduces and local == "nvlink" and group.nodes == 1 and _number(gpu.compute_capability) >= (9, 0):
        times[0] /= IN_SWITCH
    return Interval(*times)


def gradient_seconds(size: int, placement: Placement, gpu: GpuSpec) -> Interval:
    """Of reducing all gradients over all cards at once, beside nothing."""
    return seconds(Transfer("reduce", size, 1, "all"), placement, gpu)


def _latency(protocol: int, steps: tuple[int, int], hops: tuple[float, float]) -> float:
    """Seconds until the last hop, of `steps` in all, and between nodes."""
    every, between = steps
    return (SIMPLE_S, LL128_S)[protocol] + (every - between) * hops[protocol] + between * NETWORK_HOP_S[protocol]


def _ring(group: Group, placement: Placement, gpu: GpuSpec) -> tuple[Interval, tuple[float, float], str]:
    """The bandwidth of a ring, the time of a hop inside a node, and the link there."""
    local = link_of(gpu, placement)
    hops = NVLINK_HOP_S if local == "nvlink" else PCIE_HOP_S
    if group.nodes == 1:
        return link_bytes_per_s(gpu, placement), hops, local
    ports = group.ranks // group.nodes
    network = network_bytes_per_s(placement).times(ports)
    if ports == 1:
        return network, hops, local
    inside = link_bytes_per_s(gpu, placement)
    return Interval(*map(min, zip(inside, network, strict=True))), hops, local
