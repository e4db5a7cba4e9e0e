"""The formula's prediction for a burst before it runs: memory, time, and whether it fits. Needs no torch."""

from __future__ import annotations

from typing import NamedTuple

from advisor.advice.job import fit_of
from advisor.catalog.gpus import reported_card
from advisor.costs.device import DeviceProfile, workspace_bytes
from advisor.costs.estimation import estimate
from advisor.costs.memory import predict_step_memory
from advisor.costs.micro_batches import MicroBatch
from advisor.costs.micro_step import StepKernels, micro_step_time
from advisor.costs.rank_memory import predict_rank_memory
from advisor.costs.steptime import optimizer_step_time
from advisor.decoders.step import step_program
from advisor.interval import Interval
from advisor.parameters.stored import as_stored
from advisor.specs import Estimate, GpuSpec, MemoryEstimate, ModelSpec, Placement, Recipe, Workload
from advisor.stacks import library_stack
from advisor.terms import TermName
from advisor.units import GIB
from calibrate.batches import Draws, evaluated_batch, micro_batch_of, varies
from calibrate.burst_record import DeviceFacts, PredictedVerdict
from calibrate.compare import evaluation_bytes, predicted_memory, static_terms
from calibrate.measurement import Figures
from calibrate.ranks import rank_figures, rank_memory

CPU_PROCESS_BYTES = Interval(0.4 * GIB, 0.8 * GIB, 1.2 * GIB)
"""Libraries and whatever else a burst's process needs besides its tensors."""
CPU_SPREAD = (0.0, 0.25)
"""Overhead of the C library's allocator, as a share of the tensors' bytes."""


class Speed(NamedTuple):
    """How fast a device is: its rates, the fractions of them that are reached, and a short note on their source."""

    card: GpuSpec
    profile: DeviceProfile
    source: str


class Times(NamedTuple):
    """Seconds of one micro-step and of one optimizer step."""

    micro_step_s: float
    step_s: float


class Prediction(NamedTuple):
    """`needed` is the memory that the device must have, including overheads; both are None without a formula."""

    figures: Figures | None
    needed: Interval | None
    verdict: PredictedVerdict


UNKNOWN = Prediction(None, None, "unknown")


def predict(
    model: ModelSpec | None,
    recipe: Recipe,
    seq_len: int,
    device: DeviceFacts,
    limit_bytes: int,
    speed: Speed | None = None,
    rows: Workload | None = None,
    placement: Placement | None = None,
) -> Prediction:
    """The prediction for one burst on `device`, which has `limit_bytes` available (0: unknown).

    `rows`: how they come, None where all have `seq_len` tokens. Without `speed`, times come from the card's default
    profile; where rows vary there are none, as every step has its own. `placement`: the cards that share the burst, of
    which the figures are one's; ranks on a CPU share its memory, and their time is not predicted.
    Raises UnknownName for target modules that the model does not have.
    """
    if model is None:
        return UNKNOWN
    model = as_stored(model, recipe.stack)
    batch, evaluated = micro_batch_of(recipe, seq_len, rows), evaluated_batch(recipe, seq_len, rows)
    if device.kind == "cpu":
        if placement is None:
            figures = predicted_memory(model, recipe, batch.rows, batch.tokens, batch.kind, evaluated)
        else:
            figures = rank_memory(model, recipe, placement, batch)
        needed = Interval.around(float(figures.peak_allocated_bytes), *CPU_SPREAD).plus(CPU_PROCESS_BYTES)
        needed = needed.times(1 if placement is None else placement.gpus)
        figures = figures.model_copy(update={"peak_reserved_bytes": None})
        times = predicted_time(model, recipe, seq_len, device, speed, batch) if placement is None else None
    else:
        found = _estimate(model, recipe, seq_len, device, speed, rows, placement)
        steps = found  # an evaluation may need more than they do
        if evaluated is not None:
            steps = _estimate(model, recipe.model_copy(update={"eval_batch": 0}), seq_len, device, speed, rows)
        if placement is None:
            figures = _on_card(model, recipe, batch, evaluated, device, steps.memory)
        else:
            figures = _on_one_of(placement, model, recipe, batch, device, steps.memory)
        needed, times = found.memory.needed_bytes, _times_of(steps)
    if times is not None and not varies(rows):
        figures = figures.model_copy(update=times._asdict())
    return Prediction(figures, needed, verdict_of(needed, limit_bytes))


def step_peaks(model: ModelSpec, recipe: Recipe, draws: Draws, device: DeviceFacts) -> tuple[int, ...]:
    """Bytes: the predicted peak of each step of drawn micro-batches; the first one of a step finds no gradients."""
    beside = workspace_bytes(_card_of(device)) if device.kind == "cuda" else 0
    first = recipe.model_copy(update={"gradient_accumulation": 1})

    def peak(of: Recipe, batch: MicroBatch) -> int:
        rows, tokens, padded, packed = batch
        card = device.compute_capability
        step = predict_step_memory(model, of, rows, tokens, device.kind, padded=padded, capability=card, packed=packed)
        return step.peak_bytes + beside

    return tuple(max(peak(recipe if n else first, drawn.batch) for n, drawn in enumerate(step)) for step in draws)


def predicted_time(
    model: ModelSpec,
    recipe: Recipe,
    seq_len: int,
    device: DeviceFacts,
    speed: Speed | None,
    batch: MicroBatch | None = None,
) -> Times | None:
    """Seconds of a step on `device`; None where its speed is unknown, such as that of a CPU before it is measured."""
    if device.kind == "cpu":
        if speed is None:
            return None
        rows, tokens, padded, packed = batch or MicroBatch(recipe.micro_batch, seq_len)
        work = step_program(model, recipe, rows, tokens, "cpu", library_stack(recipe), padded=padded, packed=packed)
        kernels = work.kernels(rows, tokens, recipe.rank)
        return Times(*step_seconds(model, recipe, kernels, speed.card, speed.profile))
    return _times_of(_estimate(model, recipe, seq_len, device, speed))


def _times_of(found: Estimate) -> Times | None:
    return None if found.time is None else Times(found.time.micro_step_s.likely, found.time.step_s.likely)


def step_seconds(
    model: ModelSpec, recipe: Recipe, kernels: StepKernels, card: GpuSpec, profile: DeviceProfile
) -> tuple[float, float]:
    """(micro-step, step) in seconds of the tape's kernels, on one device."""
    micro_s = micro_step_time(kernels, card, profile).seconds.likely
    optimizer_s = optimizer_step_time(model, recipe, card, profile).seconds.likely
    return micro_s, recipe.gradient_accumulation * micro_s + optimizer_s


def verdict_of(needed: Interval, limit_bytes: int) -> PredictedVerdict:
    """As `advise` judges; 'unknown' when the limit is unknown."""
    return fit_of(needed, limit_bytes) if limit_bytes else "unknown"


def _estimate(
    model: ModelSpec,
    recipe: Recipe,
    seq_len: int,
    device: DeviceFacts,
    speed: Speed | None,
    rows: Workload | None = None,
    placement: Placement | None = None,
) -> Estimate:
    card = _card_of(device) if speed is None else speed.card
    number = recipe.micro_batch * recipe.gradient_accumulation * (1 if placement is None else placement.gpus)
    full = rows or Workload(seq_len=seq_len, mean_seq_len=seq_len)
    workload = full.model_copy(update={"examples": number, "batch_size": number})
    return estimate(model, recipe, workload, card, placement, profile=None if speed is None else speed.profile)


def _card_of(device: DeviceFacts) -> GpuSpec:
    return reported_card(device.name, device.memory_bytes, device.compute_capability)


def _on_card(
    model: ModelSpec,
    recipe: Recipe,
    batch: MicroBatch,
    evaluated: MicroBatch | None,
    device: DeviceFacts,
    memory: MemoryEstimate,
) -> Figures:
    card = device.compute_capability
    rows, tokens, padded, packed = batch
    stack = library_stack(recipe)
    step = predict_step_memory(model, recipe, rows, tokens, "cuda", stack, padded, card, packed)
    workspace = memory.bytes_of(TermName.WORKSPACE)
    return Figures(
        peak_allocated_bytes=round(memory.peak_allocated_bytes.likely),
        peak_reserved_bytes=round(memory.peak_reserved_bytes.likely),
        device_bytes=round(memory.device_bytes.likely),
        static_bytes=sum(step.static_blocks.values()) + workspace,
        after_forward_bytes=step.after_forward_bytes + workspace,
        evaluation_bytes=None
        if evaluated is None
        else evaluation_bytes(model, recipe, evaluated, "cuda", card) + workspace,
        peak_at=step.peak_at,
        **static_terms(step),
    )


def _on_one_of(
    placement: Placement,
    model: ModelSpec,
    recipe: Recipe,
    batch: MicroBatch,
    device: DeviceFacts,
    memory: MemoryEstimate,
) -> Figures:
    """The same of one of several cards."""
    rows, tokens, padded, packed = batch
    stack, card = library_stack(recipe), device.compute_capability
    step = predict_rank_memory(model, recipe, placement, rows, tokens, "cuda", stack, padded, card, packed)
    found = {
        "peak_allocated_bytes": round(memory.peak_allocated_bytes.likely),
        "peak_reserved_bytes": round(memory.peak_reserved_bytes.likely),
        "device_bytes": round(memory.device_bytes.likely),
    }
    return rank_figures(step, memory.bytes_of(TermName.WORKSPACE)).model_copy(update=found)
