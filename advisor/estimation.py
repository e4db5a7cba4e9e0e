"""The one place where the terms meet: a recipe on a card becomes memory, time and what they stand on."""

from __future__ import annotations

from functools import lru_cache

from advisor.device import DeviceProfile, profile_for
from advisor.errors import BadValue
from advisor.interval import Interval
from advisor.memory import StepMemory, predict_step_memory
from advisor.specs import (
    Estimate,
    Evidence,
    GpuSpec,
    MemoryEstimate,
    ModelSpec,
    Placement,
    Recipe,
    Term,
    TimeEstimate,
    Workload,
)
from advisor.steptime import StepKernels, mean_shape, time_estimate
from advisor.tape.step import step_program
from advisor.tape.trained import trained_shapes

ALLOCATED_SPREAD = (0.02, 0.02)
"""Relative bounds of the peak that PyTorch allocates: what CUDA's kernels may differ by from the traced CPU step."""

MEMORY_EVIDENCE = (
    "every tensor of the step (transformers 5.23, peft 0.21, bitsandbytes 0.50), checked against traces of the real "
    "CPU step; CUDA's own kernels from their source; fragmentation and CUDA context are defaults"
)


def memory_estimate(step: StepMemory, profile: DeviceProfile) -> MemoryEstimate:
    """What the card must hold for a step: allocated, reserved with fragmentation, and the CUDA context on top.

    The terms add up to `device_bytes.likely`.
    """
    allocated = step.peak_bytes + profile.workspace_bytes
    low, high = ALLOCATED_SPREAD
    bounds = Interval.around(float(allocated), low, high)
    reserved_at = [profile.reserved(value) for value in bounds]
    reserved = Interval(reserved_at[0].low, reserved_at[1].likely, reserved_at[2].high)
    device = reserved.plus(profile.context_bytes)
    terms = {
        **step.static_blocks,
        **step.moving,
        "cuBLAS workspace": profile.workspace_bytes,
        "fragmentation": round(reserved.likely) - allocated,
        "CUDA context": round(device.likely) - round(reserved.likely),
    }
    return MemoryEstimate(
        peak_allocated_bytes=bounds,
        peak_reserved_bytes=reserved,
        device_bytes=device,
        peak_at=step.peak_at,
        terms=tuple(Term(name=name, bytes=size) for name, size in terms.items() if size),
    )


@lru_cache(maxsize=256)
def _step_memory(m: ModelSpec, recipe: Recipe, seq_len: int) -> StepMemory:
    """What does not depend on the card: a bare size stands for many cards."""
    return predict_step_memory(m, recipe, recipe.micro_batch, seq_len)


@lru_cache(maxsize=64)
def _kernels(m: ModelSpec, recipe: Recipe, batch: int, length: int) -> StepKernels:
    return step_program(m, recipe, batch, length, "cuda").kernels(batch, length, recipe.rank)


def _time(
    m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, profile: DeviceProfile, placement: Placement
) -> TimeEstimate | None:
    if not gpu.speed_known:
        return None
    batch, length = mean_shape(workload, recipe)
    return time_estimate(m, recipe, workload, gpu, profile, _kernels(m, recipe, batch, length), placement)


def estimate(
    model: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, placement: Placement | None = None
) -> Estimate:
    """Memory and time of training `model` by `recipe` on `gpu`.

    Memory is that of the longest rows (`workload.seq_len`), time that of an average micro-batch. Time is None when
    the card's speed is not known. Raises UnknownName for target modules that the model does not have, and BadValue
    for weights sharded over cards, which the tape does not model.
    """
    placement = placement or Placement()
    if placement.sharding in ("zero2", "zero3"):
        raise BadValue("--sharding", placement.sharding, "only none and ddp are estimated; use one card's answer")
    profile = profile_for(gpu)
    step = _step_memory(model, recipe, workload.seq_len)
    return Estimate(
        recipe=recipe,
        memory=memory_estimate(step, profile),
        time=_time(model, recipe, workload, gpu, profile, placement),
        trainable_parameters=sum(p.elements * p.times for p in trained_shapes(model, recipe)),
        evidence=Evidence(rung="formula", memory=MEMORY_EVIDENCE, time=profile.evidence),
    )
