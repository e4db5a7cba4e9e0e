"""Seconds of a job: its steps, of micro-steps, gradient clipping and the optimizer, and its evaluations.

step        micro-steps, gradient clipping, the optimizer, and what several cards exchange after it
job         steps times their number, and evaluations; warm-up, start-up and saving excluded
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from advisor.costs.device import DeviceProfile, card_class
from advisor.costs.host_link import host_link
from advisor.costs.micro_step import MicroStepTime, StepKernels, bound_of, mean_of, micro_step_time
from advisor.costs.optimizer import OptimizerWork, optimizer_work
from advisor.costs.power import energy
from advisor.costs.roofline import peak_flop_per_s
from advisor.interval import Interval
from advisor.parameters.trained import trained_shapes
from advisor.specs import GpuSpec, ModelSpec, Placement, Recipe, TimeEstimate, Workload

if TYPE_CHECKING:
    from advisor.engines.engine import Engine

FORMULA_VERSION = 3
"""Incremented by every change of the formula that invalidates the profiles fitted before it."""


class OptimizerStepTime(NamedTuple):
    """Clipping, the optimizer and what the trainer does once a step."""

    seconds: Interval
    device_s: float
    launch_s: float


@lru_cache(maxsize=64)
def _optimizer_work(m: ModelSpec, recipe: Recipe, engine: Engine | None) -> OptimizerWork:
    """Once for all cards."""
    updated = trained_shapes(m, recipe) if engine is None else engine.updated()
    return optimizer_work(updated, recipe.optimizer, recipe.optimizer_in_backward)


def optimizer_step_time(
    m: ModelSpec, recipe: Recipe, gpu: GpuSpec, profile: DeviceProfile, engine: Engine | None = None
) -> OptimizerStepTime:
    """Time after the last backward of a step, in which each card updates what its engine leaves it, or all."""
    work = _optimizer_work(m, recipe, engine)
    bandwidth = gpu.memory_bytes_per_s * profile.optimizer_bandwidth
    arithmetic_s = work.flop / (peak_flop_per_s(gpu)["bfloat16"] * profile.matrix_efficiency)
    device_s = work.moved_bytes / bandwidth + arithmetic_s + work.launches * profile.kernel_s
    launch_s = work.launches * profile.backward_launch_s + work.host_s + profile.optimizer_step_s
    spread = zip(profile.device_spread, profile.launch_spread, strict=True)
    if profile.asynchronous:
        times_s = [max(device_s * device, launch_s * launch) for device, launch in spread]
    else:
        times_s = [device_s * device + launch_s * launch for device, launch in spread]
    seconds = Interval(*times_s)
    if engine is not None and engine.on_host:
        from advisor.costs.host_step import host_optimizer_seconds  # loaded where states are on the host alone

        seconds = seconds.plus(host_optimizer_seconds(engine.updated_on_host(), recipe, engine.placement))
    return OptimizerStepTime(seconds, device_s, launch_s)


def closing_seconds(engine: Engine | None, gpu: GpuSpec) -> Interval:
    """Of what comes from the host and what the cards exchange once a step, after the optimizer and beside nothing."""
    if engine is None or not (engine.closing() or engine.returned_bytes()):
        return Interval.exact(0.0)
    from advisor.costs.collectives import seconds  # loaded for several cards alone

    link = reversed(host_link(card_class(gpu)))
    total = Interval(*(engine.returned_bytes() / rate for rate in link))
    for one in engine.closing():
        total = total.plus(seconds(one, engine.placement, gpu))
    return total


def micro_steps_time(
    micro_batches: Sequence[tuple[StepKernels, float]],
    recipe: Recipe,
    gpu: GpuSpec,
    profile: DeviceProfile,
    engine: Engine | None,
) -> MicroStepTime:
    """The mean over a step's micro-steps: the last one, in which gradients are reduced, may differ from the others."""
    repeats = recipe.gradient_accumulation
    last = True if engine is None else engine.syncs(repeats - 1)
    others = last if engine is None or repeats == 1 else engine.syncs(0)
    kinds = [(last, 1.0)] if others == last else [(others, 1 - 1 / repeats), (last, 1 / repeats)]
    return mean_of(
        [
            (micro_step_time(parts, gpu, profile, engine, syncs), share * part)
            for parts, share in micro_batches
            for syncs, part in kinds
        ]
    )


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
    micro: MicroStepTime,
    placement: Placement,
    engine: Engine | None = None,
) -> TimeEstimate:
    """Time of the job over all cards of the placement, from that of a mean micro-step (`micro_steps_time`).

    `engine`: that of the placement, None for one card. Tokens per second count real tokens, without padding, over all
    cards. Raises BadValue for a card without rates, and for nodes without a network.
    """
    optimizer = optimizer_step_time(m, recipe, gpu, profile, engine)
    repeats = recipe.gradient_accumulation
    step_s = micro.seconds.times(repeats).plus(optimizer.seconds).plus(closing_seconds(engine, gpu))
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
        bound=bound_of(
            micro.launch_s * repeats + optimizer.launch_s,
            micro.device_s * repeats + optimizer.device_s,
            micro.compute_s * repeats,
            micro.memory_s * repeats + optimizer.device_s,
            micro.link_s * repeats,
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
    engine: Engine | None = None,
) -> Interval:
    """Time of all evaluations of a job of `steps` steps, from the kernels of evaluation batches with their shares.

    One follows every `workload.eval_steps` steps, or every epoch. Ignores: reading the rows, and computing metrics.
    """
    times = steps // workload.eval_steps if workload.eval_steps else max(1, math.ceil(workload.epochs))
    batches = math.ceil(workload.eval_examples / (recipe.eval_batch * placement.gpus))
    runs = [(micro_step_time(parts, gpu, profile, engine, syncs=False), share) for parts, share in micro_batches]
    batch = mean_of(runs)
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
