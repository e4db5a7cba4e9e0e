"""The third lane of a micro-step: what cards exchange runs beside their kernels, as far as the engine lets it.

    gather      of the next layer while this one runs; the first is waited for; a part on the host comes before it
    reduction   after its layer, while later ones run; the last is waited for
    copies      what is reduced between copies of the model has a lane of its own

A part stands for `layers` equal layers, of which each takes the longest of its kernels and its share of the lane.
Sources of the order: PyTorch 2.13, distributed/fsdp/_fully_shard/_fsdp_param_group.py (unshard, wait_for_unshard,
post_backward); csrc/distributed/c10d/reducer.cpp. Ignores: kernels that run slower beside a collective.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from advisor.costs.collectives import seconds
from advisor.costs.device import card_class
from advisor.costs.host_link import host_link
from advisor.engines.engine import Engine, Phase
from advisor.interval import Interval
from advisor.specs import GpuSpec
from advisor.tape.program import PartKernels

NONE = Interval.exact(0.0)


class Exchange(NamedTuple):
    """What one layer of a part exchanges, in seconds."""

    gather: Interval
    reduction: Interval
    between: Interval  # copies of the model


class Turn(NamedTuple):
    """A part: seconds on the card and on the CPU for all its layers, and in the lane for each."""

    card_s: float
    launch_s: float
    layers: int
    gather_s: float
    reduce_s: float
    between_s: float


def exchanges_of(parts: Iterable[PartKernels], engine: Engine, syncs: bool, gpu: GpuSpec) -> list[Exchange]:
    """Of one layer of each part, by the engine's transfers; what comes from the host or goes there is beside them."""
    found, host = [], host_link(card_class(gpu))
    for part in parts:
        times = [NONE, NONE, NONE]
        phase: Phase = "forward" if part.phase == "forward" else "backward"
        for one in engine.transfers(part.place, phase, syncs):
            index = 0 if one.kind == "gather" else 2 if one.among == "copies" else 1
            times[index] = times[index].plus(seconds(one, engine.placement, gpu))
        for index, size in enumerate(engine.host_copies(part.place, phase, syncs)):
            times[index] = times[index].plus(Interval(*(size / rate for rate in reversed(host))))
        found.append(Exchange(*times))
    return found


def turns_of(
    parts: Iterable[PartKernels],
    loads: Iterable[tuple[float, float]],
    exchanges: Iterable[Exchange],
    end: int,
    asynchronous: bool,
) -> Iterator[Turn]:
    """Of (card, CPU) seconds of each part, and of one end of its exchanges: 0 the least, 1 likely, 2 the most."""
    for part, (card_s, launch_s), exchange in zip(parts, loads, exchanges, strict=True):
        times = (exchange.gather[end], exchange.reduction[end], exchange.between[end])
        if asynchronous:
            yield Turn(card_s, launch_s, part.copies, *times)
        else:
            yield Turn(card_s + launch_s, 0.0, part.copies, *times)


def lane_seconds(turns: Iterable[Turn], overlaps: bool) -> float:
    """Time until the card is done with the parts, launched in order, and nothing is under way any more."""
    cpu = card = link = between = layer_s = 0.0  # layer_s, and the two that wait: of the layer that ran last
    reduce_s = between_s = 0.0
    for one in turns:
        before, cpu = cpu, cpu + one.launch_s
        if not overlaps:
            waits_s = (one.gather_s + one.reduce_s + one.between_s) * one.layers
            card = max(max(before, card) + one.card_s, cpu) + waits_s
            continue
        begun = max(before, card)
        if one.gather_s:  # asked for when the layer before began, ahead of that layer's reduction
            link = max(link, card - layer_s) + one.gather_s
            begun = max(begun, link)
        link, between = _reduced(card, link, between, reduce_s, between_s)
        layer_s, reduce_s, between_s = one.card_s / one.layers, one.reduce_s, one.between_s
        further, each_s = one.layers - 1, one.gather_s + one.reduce_s
        waited_s = max(layer_s, each_s) if one.gather_s else layer_s
        card = max(begun + further * waited_s + layer_s, cpu)
        if further:
            link = max(link, begun if one.gather_s else begun + layer_s) + further * each_s
            between = max(between, begun + layer_s + reduce_s) + further * between_s
    return max(card, *_reduced(card, link, between, reduce_s, between_s))


def _reduced(ended: float, link: float, between: float, reduce_s: float, between_s: float) -> tuple[float, float]:
    """When both lanes are free again after the reduction of a layer that has ended."""
    if reduce_s:
        link = max(link, ended) + reduce_s
    if between_s:
        between = max(between, ended if not reduce_s else link) + between_s
    return link, between
