"""Seconds of a training step: a roofline per kernel of the tape, against the CPU that launches them.

    kernel      the longer of its arithmetic and its memory traffic, at the card's achieved rates, plus a fixed time
    micro-step  forward and backward of one micro-batch; card and CPU run side by side, the CPU runs ahead until its
                queue is empty, and waits at the end
    step        micro-steps, gradient clipping, the optimizer, and what several cards exchange
    job         steps times their number, and evaluations; warm-up, start-up and saving excluded

What it ignores: tile quantization beyond a smooth tile padding, overlap of communication with the backward pass, and
data loading that is slower than the step. The spreads of the DeviceProfile are meant to cover these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from advisor.costs.attention_rates import unsure
from advisor.costs.device import DeviceProfile
from advisor.costs.host_link import HOST_COPIES, Load, with_copies
from advisor.costs.optimizer import OptimizerWork, optimizer_work
from advisor.costs.power import energy
from advisor.costs.roofline import Roofline
from advisor.interval import Interval
from advisor.parameters.trained import Trained, trained_shapes
from advisor.specs import GpuSpec, ModelSpec, Placement, Recipe, TimeEstimate, Workload
from advisor.tape.program import Kernel, Launches, PartKernels

Bound = Literal["compute", "memory", "launch"]

FORMULA_VERSION = 2
"""Incremented by every change of the formula that invalidates the profiles fitted before it."""

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

    @property
    def bound(self) -> Bound:
        """What to speed up first: the host, the arithmetic units, or the memory."""
        return _bound(self.launch_s, self.device_s, self.compute_s, self.memory_s)


def _bound(launch_s: float, device_s: float, compute_s: float, memory_s: float) -> Bound:
    if launch_s > device_s:
        return "launch"
    return "compute" if compute_s > memory_s else "memory"


def mean_of(micro_steps: Sequence[tuple[MicroStepTime, float]]) -> MicroStepTime:
    """The mean of micro-steps, each with its share."""
    if len(micro_steps) == 1:
        return micro_steps[0][0]

    def mean(of: Callable[[MicroStepTime], float]) -> float:
        return sum(of(one) * share for one, share in micro_steps)

    return MicroStepTime(
        seconds=Interval(*(mean(lambda one, n=n: one.seconds[n]) for n in range(3))),  # type: ignore[misc]
        device_s=mean(lambda one: one.device_s),
        launch_s=mean(lambda one: one.launch_s),
        compute_s=mean(lambda one: one.compute_s),
        memory_s=mean(lambda one: one.memory_s),
        kernel_count=round(mean(lambda one: one.kernel_count)),
        flop=mean(lambda one: one.flop),
        peak_s=mean(lambda one: one.peak_s),
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


class _KernelTime(NamedTuple):
    """One kernel at a card's rates."""

    arithmetic_s: float
    traffic_s: float
    peak_s: float
    factor: Interval | None  # see `unsure`


def _kernel_time(kernel: Kernel, roofline: Roofline) -> _KernelTime:
    arithmetic_s, traffic_s = roofline.seconds(kernel)
    peak_s = kernel[2] / roofline.peaks[kernel[1]] if kernel[2] else 0.0
    return _KernelTime(arithmetic_s, traffic_s, peak_s, unsure(kernel) if arithmetic_s > traffic_s else None)


def _part_time(kernels: Iterable[tuple[Kernel, int]], roofline: Roofline, known: dict[int, _KernelTime]) -> _PartTime:
    """Every kernel the longer of its arithmetic and its traffic, without the fixed time of a launch.

    `known` holds kernels by identity, for a program makes equal ones once; new ones are added.
    """
    arithmetic_bound_s = traffic_bound_s = less_s = more_s = copied_bytes = first_bytes = flop = peak_s = 0.0
    launches = 0
    for kernel, times in kernels:
        if kernel[0] in HOST_COPIES:
            copied_bytes += kernel[3] * times
            first_bytes += kernel[3] if kernel[0] == "from_host" else 0.0
            continue
        one = known.get(id(kernel))
        if one is None:
            one = known[id(kernel)] = _kernel_time(kernel, roofline)
        arithmetic_s, traffic_s, kernel_peak_s, factor = one
        launches += times
        if kernel[2]:
            flop += kernel[2] * times
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


def micro_step_time(parts: StepKernels, gpu: GpuSpec, profile: DeviceProfile) -> MicroStepTime:
    """Time of the tape's parts, in the order in which they ran, each repeated for all layers like it."""
    roofline = Roofline(gpu, profile)
    known: dict[int, _KernelTime] = {}
    loads: tuple[list[Load], ...] = ([], [], [])  # at the least, likely, at the most
    compute_s = memory_s = flop = peak_s = 0.0
    kernel_count = 0
    for copies, kernels, by, recomputed_flop in parts:
        part = _part_time(kernels, roofline, known)
        if part.flop:
            needed = (1 - recomputed_flop / part.flop) * copies
            flop += part.flop * needed
            peak_s += part.peak_s * needed
        compute_s += part.arithmetic_s * copies
        memory_s += part.traffic_s * copies
        kernel_count += part.launches * copies
        busy_s = part.arithmetic_s + part.traffic_s + part.launches * roofline.fixed_s
        launch_s = launch_seconds(by, profile) * copies
        for some, device_s in zip(loads, (busy_s - part.less_s, busy_s, busy_s + part.more_s), strict=True):
            some.append(Load(device_s * copies, launch_s, part.copied_bytes * copies, part.first_bytes))
    link = reversed(profile.host_bytes_per_s)  # the fastest first
    times_s = [
        queue_seconds(with_copies(some, (device, launch), rate), profile.asynchronous) + profile.micro_step_s * launch
        for some, device, launch, rate in zip(loads, profile.device_spread, profile.launch_spread, link, strict=True)
    ]
    return MicroStepTime(
        seconds=Interval(*times_s),
        device_s=sum(load.card_s for load in loads[1]),
        launch_s=sum(load.launch_s for load in loads[1]) + profile.micro_step_s,
        compute_s=compute_s,
        memory_s=memory_s,
        kernel_count=kernel_count,
        flop=flop,
        peak_s=peak_s,
    )


class OptimizerStepTime(NamedTuple):
    """Clipping, the optimizer and what the trainer does once a step."""

    seconds: Interval
    device_s: float
    launch_s: float


@lru_cache(maxsize=64)
def _optimizer_work(m: ModelSpec, recipe: Recipe) -> OptimizerWork:
    """Once for all cards."""
    return optimizer_work(trained_shapes(m, recipe), recipe.optimizer, recipe.optimizer_in_backward)


def optimizer_step_time(m: ModelSpec, recipe: Recipe, gpu: GpuSpec, profile: DeviceProfile) -> OptimizerStepTime:
    """Time after the last backward of a step, in which each card updates all parameters."""
    work = _optimizer_work(m, recipe)
    bandwidth = gpu.memory_bytes_per_s * profile.optimizer_bandwidth
    device_s = work.moved_bytes / bandwidth + work.launches * profile.kernel_s
    launch_s = work.launches * profile.backward_launch_s + work.host_s + profile.optimizer_step_s
    spread = zip(profile.device_spread, profile.launch_spread, strict=True)
    if profile.asynchronous:
        times_s = [max(device_s * device, launch_s * launch) for device, launch in spread]
    else:
        times_s = [device_s * device + launch_s * launch for device, launch in spread]
    return OptimizerStepTime(Interval(*times_s), device_s, launch_s)


def exchanged_bytes(trained: Iterable[Trained], placement: Placement) -> float:
    """Bytes that each of n cards sends once per optimizer step: its gradients, all-reduced over a ring.

    A ring all-reduce scatters and gathers, and each of the two moves (n - 1) / n of the data.
    Source: Rajbhandari et al. 2020, arXiv:1910.02054, section 7.
    """
    if placement.effective_sharding == "none":
        return 0.0
    return 2 * (placement.gpus - 1) / placement.gpus * sum(p.bytes * p.times for p in trained)


def exchange_seconds(trained: Iterable[Trained], placement: Placement, profile: DeviceProfile) -> Interval:
    """Time per optimizer step of what the cards exchange, over the links of the profile.

    Ignores: the overlap with the last micro-batch's backward pass, and the latency of each bucket.
    """
    link = profile.link_bytes_per_s
    slow_to_fast = Interval(1 / link.high, 1 / link.likely, 1 / link.low)
    return slow_to_fast.times(exchanged_bytes(trained, placement))


def row_count(workload: Workload) -> int:
    """Rows of one epoch: examples, or the full rows that they fill when packed."""
    if not workload.packing:
        return workload.examples
    return max(1, math.ceil(workload.examples * min(workload.mean_seq_len, workload.seq_len) / workload.seq_len))


def step_count(workload: Workload, recipe: Recipe, placement: Placement) -> int:
    """Optimizer steps of the whole job."""
    batch = recipe.micro_batch * recipe.gradient_accumulation * placement.gpus
    return max(1, math.ceil(row_count(workload) * workload.epochs / batch))


def steps_between_evaluations(workload: Workload, recipe: Recipe, placement: Placement) -> int:
    """Optimizer steps from one evaluation to the next: an epoch where nothing else is said."""
    return workload.eval_steps or step_count(workload.model_copy(update={"epochs": 1.0}), recipe, placement)


def time_estimate(
    m: ModelSpec,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    profile: DeviceProfile,
    micro_batches: Sequence[tuple[StepKernels, float]],
    placement: Placement,
) -> TimeEstimate:
    """Time of the job over all cards of the placement, from the tape's kernels of micro-batches with their shares.

    Tokens per second count real tokens, without padding, over all cards. Raises BadValue for a card without rates.
    """
    micro = mean_of([(micro_step_time(parts, gpu, profile), share) for parts, share in micro_batches])
    optimizer = optimizer_step_time(m, recipe, gpu, profile)
    exchange_s = exchange_seconds(trained_shapes(m, recipe), placement, profile)
    repeats = recipe.gradient_accumulation
    step_s = micro.seconds.times(repeats).plus(optimizer.seconds).plus(exchange_s)
    steps = step_count(workload, recipe, placement)
    total_s = step_s.times(steps)
    busy = min(1.0, (micro.device_s * repeats + optimizer.device_s) / step_s.likely)
    row_tokens = workload.seq_len if workload.packing else min(workload.mean_seq_len, workload.seq_len)
    return TimeEstimate(
        micro_step_s=micro.seconds,
        step_s=step_s,
        total_s=total_s,
        steps=steps,
        tokens_per_s=recipe.micro_batch * repeats * placement.gpus * row_tokens / step_s.likely,
        bound=_bound(
            micro.launch_s * repeats + optimizer.launch_s,
            micro.device_s * repeats + optimizer.device_s,
            micro.compute_s * repeats,
            micro.memory_s * repeats + optimizer.device_s,
        ),
        flop_per_step=micro.flop * repeats,
        mfu=micro.peak_s * repeats / step_s.likely,
        energy_j=energy(total_s, busy, gpu).times(placement.gpus) if gpu.power_w else None,
    )


def evaluation_seconds(
    micro_batches: Sequence[tuple[StepKernels, float]],
    recipe: Recipe,
    workload: Workload,
    steps: int,
    gpu: GpuSpec,
    profile: DeviceProfile,
    placement: Placement,
) -> Interval:
    """Time of all evaluations of a job of `steps` steps, from the kernels of evaluation batches with their shares.

    One follows every `workload.eval_steps` steps, or every epoch. Ignores: reading the rows, and computing metrics.
    """
    times = steps // workload.eval_steps if workload.eval_steps else max(1, math.ceil(workload.epochs))
    batches = math.ceil(workload.eval_examples / (recipe.eval_batch * placement.gpus))
    batch = mean_of([(micro_step_time(parts, gpu, profile), share) for parts, share in micro_batches])
    return batch.seconds.times(times * batches)


def with_evaluation(training: TimeEstimate, evaluations_s: Interval) -> TimeEstimate:
    """The time of a job with its evaluations, which draw as much power as its training."""
    total_s = training.total_s.plus(evaluations_s)
    energy_j = training.energy_j
    if energy_j is not None:
        energy_j = Interval(
            *(e * all_s / only_s for e, all_s, only_s in zip(energy_j, total_s, training.total_s, strict=True))
        )
    return training.model_copy(update={"total_s": total_s, "evaluation_s": evaluations_s, "energy_j": energy_j})
