"""Seconds of a micro-step: a roofline per kernel of the tape, against the CPU that launches them and the cards' links.

    kernel      the longer of its arithmetic and its memory traffic, at the card's achieved rates, plus a fixed time
    micro-step  forward and backward of one micro-batch; card and CPU run side by side, the CPU runs ahead until its
                queue is empty, and waits at the end

What it ignores: tile quantization beyond a smooth tile padding, and data loading that is slower than the step. The
spreads of the DeviceProfile are meant to cover these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import fsum
from typing import TYPE_CHECKING, Literal, NamedTuple

from advisor.costs.attention_rates import unsure
from advisor.costs.device import DeviceProfile
from advisor.costs.host_link import HOST_COPIES, Load, with_copies
from advisor.costs.roofline import Roofline
from advisor.interval import Interval
from advisor.specs import GpuSpec
from advisor.tape.program import Kernel, Launches, PartKernels

if TYPE_CHECKING:
    from advisor.engines.engine import Engine

Bound = Literal["compute", "memory", "launch", "link"]

StepKernels = Sequence[PartKernels]
"""For each part in order what it runs; what tape.program.Program.kernels gives."""


class MicroStepTime(NamedTuple):
    """Forward and backward of one micro-batch."""

    seconds: Interval
    device_s: float
    launch_s: float
    compute_s: float
    memory_s: float
    kernel_count: int
    flop: float  # without recomputation
    peak_s: float  # of those FLOP at the rates of the data sheet
    link_s: float = 0.0  # of what several cards exchange, beside the kernels or not

    @property
    def bound(self) -> Bound:
        """What to speed up first: the host, the arithmetic units, the memory, or the links between cards."""
        return bound_of(self.launch_s, self.device_s, self.compute_s, self.memory_s, self.link_s)


def bound_of(launch_s: float, device_s: float, compute_s: float, memory_s: float, link_s: float) -> Bound:
    """What takes longest of those that run side by side."""
    if link_s > max(launch_s, device_s):
        return "link"
    if launch_s > device_s:
        return "launch"
    return "compute" if compute_s > memory_s else "memory"


def mean_of(micro_steps: Sequence[tuple[MicroStepTime, float]]) -> MicroStepTime:
    """The mean of micro-steps, each with its share."""
    if len(micro_steps) == 1:
        return micro_steps[0][0]

    def mean(of: Callable[[MicroStepTime], float]) -> float:
        return fsum(of(one) * share for one, share in micro_steps)

    return MicroStepTime(
        seconds=Interval(*(mean(lambda one, n=n: one.seconds[n]) for n in range(3))),  # type: ignore[misc]
        device_s=mean(lambda one: one.device_s),
        launch_s=mean(lambda one: one.launch_s),
        compute_s=mean(lambda one: one.compute_s),
        memory_s=mean(lambda one: one.memory_s),
        kernel_count=round(mean(lambda one: one.kernel_count)),
        flop=mean(lambda one: one.flop),
        peak_s=mean(lambda one: one.peak_s),
        link_s=mean(lambda one: one.link_s),
    )


def launch_seconds(launches: Launches, profile: DeviceProfile) -> float:
    """CPU time of launching a part's kernels."""
    forward, backward, hook = profile.forward_launch_s, profile.backward_launch_s, profile.hook_s
    return launches.python * forward + launches.engine * backward + launches.hooked * hook


def queue_seconds(
    loads: Iterable[tuple[float, float]],
    asynchronous: bool = True,
) -> float:
    """Time until the card is done with parts of (card seconds, CPU seconds), launched in order.

    The CPU does not wait for the card; the card begins a part when the CPU does, or when it is free, and cannot
    end it before its last kernel was launched. If not `asynchronous`, both are one processor.
    """
    cpu = card = 0.0
    for device_s, launch_s in loads:
        if not asynchronous:
            card += device_s + launch_s
            continue
        begun = cpu if cpu > card else card
        cpu += launch_s
        card = max(begun + device_s, cpu)
    return card


class _PartTime(NamedTuple):
    """The kernels of one layer or end on the card, in seconds."""

    arithmetic_s: float  # kernels bound by their arithmetic
    traffic_s: float  # kernels bound by their memory traffic
    less_s: float  # what the least certain kernels may take less, and more, beyond the card's own spread
    more_s: float
    copied_bytes: float  # to the host and back
    first_bytes: float  # back before it starts
    launches: int
    flop: float
    peak_s: float


_KernelTime = tuple[float, float, float, float, Interval | None]
"""One kernel at a card's rates: arithmetic_s, traffic_s, FLOP, peak_s, and how unsure it is, see `unsure`; arithmetic_s
is below zero where the kernel copies to the host or back. A bare tuple, because an answer looks at thousands."""
_COPY: _KernelTime = (-1.0, 0.0, 0.0, 0.0, None)


def _kernel_time(kernel: Kernel, roofline: Roofline) -> _KernelTime:
    kind, dtype, flop, _, _ = kernel
    if kind in HOST_COPIES:
        return _COPY
    arithmetic_s, traffic_s = roofline.seconds(kernel)
    peak_s = flop / roofline.peaks[dtype] if flop else 0.0
    return arithmetic_s, traffic_s, flop, peak_s, unsure(kernel) if arithmetic_s > traffic_s else None


def _part_time(kernels: Iterable[tuple[Kernel, int]], roofline: Roofline, known: dict[int, _KernelTime]) -> _PartTime:
    """Every kernel the longer of its arithmetic and its traffic, without the fixed time of a launch.

    `known` holds kernels by identity, for a program makes equal ones once; new ones are added.
    """
    arithmetic_bound_s = traffic_bound_s = less_s = more_s = copied_bytes = first_bytes = flop = peak_s = 0.0
    launches = 0
    for kernel, times in kernels:
        one = known.get(id(kernel))
        if one is None:
            one = known[id(kernel)] = _kernel_time(kernel, roofline)
        arithmetic_s, traffic_s, kernel_flop, kernel_peak_s, factor = one
        if arithmetic_s < 0:
            copied_bytes += kernel[3] * times
            first_bytes += kernel[3] if kernel[0] == "from_host" else 0.0
            continue
        launches += times
        if kernel_flop:
            flop += kernel_flop * times
            peak_s += kernel_peak_s * times
        if arithmetic_s <= traffic_s:
            traffic_bound_s += traffic_s * times
            continue
        arithmetic_bound_s += arithmetic_s * times
        if factor is not None:
            less_s += (arithmetic_s - max(arithmetic_s * factor.low, traffic_s)) * times
            more_s += arithmetic_s * (factor.high - 1) * times
    return _PartTime(
        arithmetic_bound_s, traffic_bound_s, less_s, more_s, copied_bytes, first_bytes, launches, flop, peak_s
    )


def micro_step_time(
    parts: StepKernels,
    gpu: GpuSpec,
    profile: DeviceProfile,
    engine: Engine | None = None,
    syncs: bool = True,
) -> MicroStepTime:
    """Time of the tape's parts, in the order in which they ran, each repeated for all layers like it.

    `engine`: of several cards, None for one. `syncs`: in a micro-batch whose gradients they reduce.
    """
    roofline = Roofline(gpu, profile)
    known: dict[int, _KernelTime] = {}
    loads: tuple[list[Load], ...] = ([], [], [])  # at the least, likely, at the most
    compute_s = memory_s = flop = peak_s = 0.0
    kernel_count = 0
    for one in parts:
        copies = one.copies
        part = _part_time(one.kernels, roofline, known)
        if part.flop:
            needed = (1 - one.recomputed_flop / part.flop) * copies
            flop += part.flop * needed
            peak_s += part.peak_s * needed
        traffic_s = part.traffic_s
        if engine is not None:
            phase: Literal["forward", "backward"] = "forward" if one.phase == "forward" else "backward"
            traffic_s += roofline.copy_seconds(engine.copied_bytes(one.place, phase, syncs))
        compute_s += part.arithmetic_s * copies
        memory_s += traffic_s * copies
        kernel_count += part.launches * copies
        busy_s = part.arithmetic_s + traffic_s + part.launches * roofline.fixed_s
        launch_s = launch_seconds(one.launches, profile) * copies
        for some, device_s in zip(loads, (busy_s - part.less_s, busy_s, busy_s + part.more_s), strict=True):
            some.append(Load(device_s * copies, launch_s, part.copied_bytes * copies, part.first_bytes))
    seconds, link_s = _elapsed(parts, loads, gpu, profile, engine, syncs)
    return MicroStepTime(
        seconds=seconds,
        device_s=fsum(load.card_s for load in loads[1]),
        launch_s=fsum(load.launch_s for load in loads[1]) + profile.micro_step_s,
        compute_s=compute_s,
        memory_s=memory_s,
        kernel_count=kernel_count,
        flop=flop,
        peak_s=peak_s,
        link_s=link_s,
    )


def _elapsed(
    parts: StepKernels,
    loads: Sequence[Sequence[Load]],
    gpu: GpuSpec,
    profile: DeviceProfile,
    engine: Engine | None,
    syncs: bool,
) -> tuple[Interval, float]:
    """From the first launch to the end of the last kernel and exchange; and the seconds of all exchanges."""
    link = reversed(profile.host_bytes_per_s)  # the fastest first
    times_s, link_s = [], 0.0
    exchanges = None
    if engine is not None:
        from advisor.costs.link_lane import exchanges_of, lane_seconds, turns_of  # loaded for several cards alone

        exchanges = exchanges_of(parts, engine, syncs, gpu)
        link_s = fsum(fsum(time.likely for time in of) * part.copies for part, of in zip(parts, exchanges, strict=True))
    for end, (some, device, launch, rate) in enumerate(
        zip(loads, profile.device_spread, profile.launch_spread, link, strict=True)
    ):
        pairs = with_copies(some, (device, launch), rate)
        if exchanges is None or engine is None:
            elapsed_s = queue_seconds(pairs, profile.asynchronous)
        else:
            turns = turns_of(parts, pairs, exchanges, end, profile.asynchronous)
            elapsed_s = lane_seconds(turns, engine.overlaps)
        times_s.append(elapsed_s + profile.micro_step_s * launch)
    return Interval(*times_s), link_s
