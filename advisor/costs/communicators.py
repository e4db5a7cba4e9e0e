"""Memory of a card that NCCL takes beside PyTorch: the buffers of its connections, and what else it holds.

    connection   buffers of the three protocols, LL 0.5, LL128 4.7 and Simple 4 MiB, in pieces of 2 MiB: 10 MiB at the
                 receiver and 2 at the sender, for each channel and neighbor
    channels     rings over the links, each laid twice; between cards without peer-to-peer copies the buffers are in the
                 host's memory
    neighbors    one of a ring; the other one, too, where a tree reduces
    switch       where the switch of a node adds up (NVLS), buffers for each of its cards

Sources: NVIDIA/nccl, src/init.cc (computeBuffSizes), src/transport/p2p.cc, src/transport/nvls.cc (ncclNvlsBufferSetup),
src/graph/search.cc (speedArrayIntra: 12 rings of 20 GB/s over an A100's links, 12 of 30 over an H100's) and connect.cc
(twice as many channels); pieces of 10,485,760 and 2,097,152 bytes (NVIDIA/nccl issue 1685), 24 channels between four
A100s (issue 1785), 16 between H800s of 8 links (issue 892).
Ignores: send and receive (expert parallelism), and buffers that a user registers.
"""

from __future__ import annotations

from advisor.costs.collectives import link_of
from advisor.interval import Interval
from advisor.specs import GpuSpec, Placement
from advisor.units import GIB, MIB

CONNECTION_BYTES = 12 * MIB
MOST_RINGS = 12
PCIE_CHANNELS = Interval(2, 2, 4)
SWITCH_BYTES = 32 * MIB
"""For each card of the node: 16 channels, both ways, eight steps of 128 KiB."""
BESIDE = Interval(16 * MIB, 256 * MIB, 400 * MIB)
"""Of a communicator, beside its buffers: 544 MB in all between two A100s (NVIDIA/nccl issue 964), of which 144 to 528
are buffers of 12 or more channels."""
RCCL = Interval(0.3 * GIB, 0.65 * GIB, 1.0 * GIB)
"""Of AMD's: 0.65 GiB a communicator, 1 the first with what it loads (LUMI-AI-Guide issue 111)."""


def communicators(placement: Placement) -> int:
    """Groups of cards: all of them, and under hsdp those that share a shard and those that shard a copy."""
    return 3 if placement.effective_sharding == "hsdp" else 1


def channels(gpu: GpuSpec, placement: Placement) -> Interval:
    """Lanes of a ring that have their own buffers on the card."""
    link = link_of(gpu, placement)
    if link == "host":
        return Interval.exact(0)
    if link == "pcie":
        return PCIE_CHANNELS
    rings = min(gpu.links, MOST_RINGS)
    return Interval(rings, 2 * rings, 2 * rings)


def communication_bytes(gpu: GpuSpec, placement: Placement) -> Interval:
    """Of each of several cards; nothing for one."""
    if placement.gpus == 1:
        return Interval.exact(0)
    count = communicators(placement)
    if gpu.rocm:
        return RCCL.times(count)
    neighbors = min(2, placement.gpus - 1)
    least, likely, most = channels(gpu, placement).times(CONNECTION_BYTES)
    switched = SWITCH_BYTES * placement.node_gpus if _adds_up(gpu, placement) else 0
    return BESIDE.plus(Interval(least, likely * neighbors, most * neighbors + switched)).times(count)


def _adds_up(gpu: GpuSpec, placement: Placement) -> bool:
    """Whether the switch between the cards can reduce: from Hopper on."""
    major = int(gpu.compute_capability.partition(".")[0] or 0)
    return major >= 9 and not gpu.link_cards and link_of(gpu, placement) == "nvlink" and placement.node_gpus > 2
