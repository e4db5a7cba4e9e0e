"""The one place where the terms meet: a recipe on a card becomes memory, time and their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from advisor.costs.attention import attention_uses
from advisor.costs.device import DeviceProfile, profile_for
from advisor.costs.fragmentation import counted_bytes, held_bytes
from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.costs.micro_batches import MicroBatch, evaluating, expected, length_count, worst
from advisor.costs.moments import base_of, predict_evaluation_memory
from advisor.costs.peaks import ALLOCATED_SPREAD, MEMORY_COUNTERS, MOMENT_COUNTERS, beginning_peaks, largest, peak_of
from advisor.costs.steptime import StepKernels, evaluation_seconds, time_estimate, with_evaluation
from advisor.costs.stored import with_store, with_unknown_layers
from advisor.costs.towers import with_tower
from advisor.decoders.kinds import attention_card
from advisor.decoders.stack import Proof, Stack
from advisor.decoders.step import evaluation_program, step_program
from advisor.errors import BadValue, expect
from advisor.images import with_pictures
from advisor.interval import Interval
from advisor.parameters.trained import trained_shapes
from advisor.specs import (
    Estimate,
    Evidence,
    GpuSpec,
    MemoryEstimate,
    Model,
    ModelSpec,
    Moment,
    Placement,
    Recipe,
    Term,
    TimeEstimate,
    TracedModel,
    Workload,
)
from advisor.stacks import stack_for
from advisor.terms import TermName

REST_OF_EVIDENCE = "fragmentation from a simulated allocator; a default CUDA context"

DURATIONS = ("micro_step_s", "step_s", "total_s", "energy_j", "evaluation_s")
Spec = TypeVar("Spec", MemoryEstimate, Moment, TimeEstimate)

TRACED_SPREAD = (0.05, 0.05)
UNFUSED_SPREAD = (0.4, 0.05)
"""The same for a model that was traced: no CUDA kernel is mirrored. With dropout, a CPU keeps masks and all attention
scores, where CUDA's kernels keep a seed: the bytes are then an upper bound."""

TRACED_EVIDENCE = "this model's own CPU step, traced with {}; not what CUDA's kernels keep"
TRACED_TIME = "FLOP and memory traffic of the trace, without kernel shapes: rough; {}"
NO_TRACED_TIME = "no time: the mean length of a row was not traced"


def memory_evidence(stack: Stack, proof: Proof) -> str:
    """What the bytes of a step of `stack` stand on, in words."""
    parts = [
        f"the step of {stack.name}",
        *(f"traced: {text}" for text in proof.traced),
        *(f"read: {text}" for text in proof.read),
        *(f"not known: {text}" for text in proof.unknown),
    ]
    return "; ".join([*parts, REST_OF_EVIDENCE])


def memory_estimate(
    step: StepMemory,
    recipe: Recipe,
    profile: DeviceProfile,
    spread: tuple[float, float] = ALLOCATED_SPREAD,
    evaluating: bool = False,
    lengths: int = 1,
) -> MemoryEstimate:
    """What the card must hold for a step, and what it will show: two numbers.

    PyTorch's allocator reserves more than its tensors need while there is room, and empties its cache before it
    fails. So what must fit lies between the allocated and the reserved peak. The CUDA context comes on top of both.
    The terms add up to `needed_bytes.likely`. `evaluating`: the step is an evaluation's. `lengths`: it is the worst of
    many, which have so many lengths in random order.
    """
    allocated = step.peak_bytes + profile.workspace_bytes
    low, high = spread
    bounds = Interval.around(float(allocated), low, high)
    static = sum(step.static_blocks.values()) + profile.workspace_bytes
    head, others = (Interval.around(float(peak + profile.workspace_bytes), low, high) for peak in step.part_peaks)
    reserved, needed = held_bytes(recipe, (head, others), static, profile.fragmentation, evaluating, lengths)
    must_fit = needed.plus(profile.context_bytes)
    terms = {
        **step.static_blocks,
        **step.moving,
        TermName.WORKSPACE: profile.workspace_bytes,
        TermName.FRAGMENTATION: round(needed.likely) - allocated,
        TermName.CONTEXT: round(must_fit.likely) - round(needed.likely),
    }
    return MemoryEstimate(
        peak_allocated_bytes=counted_bytes(bounds, needed, recipe),
        peak_reserved_bytes=reserved,
        needed_bytes=must_fit,
        device_bytes=reserved.plus(profile.context_bytes),
        peak_at=step.peak_at,
        host_bytes=step.host_bytes,
        terms=tuple(Term(name=name, bytes=size) for name, size in terms.items() if size),
    )


def replayed_memory(memory: MemoryEstimate, reserved: Interval, needed: Interval, context: Interval) -> MemoryEstimate:
    """The same step with what a replay of its job says: `reserved` without the CUDA context, `needed` with it."""
    sizes = {term.name: term.bytes for term in memory.terms}
    more = round(needed.likely) - round(memory.needed_bytes.likely)
    sizes[TermName.FRAGMENTATION] = sizes.get(TermName.FRAGMENTATION, 0) + more
    return memory.model_copy(
        update={
            "peak_reserved_bytes": reserved,
            "needed_bytes": needed,
            "device_bytes": reserved.plus(context),
            "terms": tuple(Term(name=name, bytes=size) for name, size in sizes.items() if size),
        }
    )


def within_card(memory: MemoryEstimate, memory_bytes: int, context: Interval) -> MemoryEstimate:
    """The same where what is reserved is limited by the card: there the allocator empties its cache and goes on."""
    needed, most = memory.needed_bytes, memory_bytes - context.likely
    device = (max(need, min(size, memory_bytes)) for need, size in zip(needed, memory.device_bytes, strict=True))
    room = (max(need - aside, most) for need, aside in zip(needed, context, strict=True))
    return memory.model_copy(
        update={
            "device_bytes": Interval(*device),
            "peak_reserved_bytes": Interval(*map(min, memory.peak_reserved_bytes, room)),
        }
    )


def _job_memory(
    m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, profile: DeviceProfile, step: StepMemory
) -> MemoryEstimate:
    """The peak of the job: of its worst step, or of what is before and between steps."""
    lengths = length_count(workload)
    training = memory_estimate(step, recipe, profile, lengths=lengths)
    if lengths > 1:
        training = within_card(training, gpu.memory_bytes, profile.context_bytes)
    if not (recipe.eval_batch or recipe.is_quantized):
        return training
    peaks = [peak_of("step", training)]
    if recipe.eval_batch:
        one = evaluating(recipe)
        batch = worst(workload, one)
        stack = stack_for(one, gpu, workload).shaped(m, one, batch.rows, batch.tokens)
        card = attention_card(m, one, batch.tokens, gpu, stack.masks(batch.padded))
        found = _step_memory(m, one, batch, stack, card, evaluating=True)
        peaks.append(peak_of("evaluation", memory_estimate(found, recipe, profile, evaluating=True)))
    if recipe.is_quantized:
        peaks += beginning_peaks(m, base_of(recipe), profile)
    return largest(peaks)


def _as_computed(recipe: Recipe) -> Recipe:
    """The recipe without what only the allocator asks: two plans of a search then share what is computed."""
    return recipe.model_copy(update={"expandable_segments": False})


@lru_cache(maxsize=256)
def _step_memory(
    m: ModelSpec, recipe: Recipe, batch: MicroBatch, stack: Stack, card: str, evaluating: bool = False
) -> StepMemory:
    """Computed once for the many cards of a bare size that run the same attention kernels."""
    rows, tokens, padded, packed = batch
    predict = predict_evaluation_memory if evaluating else predict_step_memory
    return predict(m, recipe, rows, tokens, stack=stack, padded=padded, capability=card, packed=packed)


@lru_cache(maxsize=64)
def _kernels(m: ModelSpec, recipe: Recipe, batch: MicroBatch, stack: Stack, card: str, evaluating: bool) -> StepKernels:
    rows, tokens, padded, packed = batch
    record = evaluation_program if evaluating else step_program
    program = record(m, recipe, rows, tokens, "cuda", stack, padded=padded, capability=card, packed=packed)
    return program.kernels(rows, tokens, recipe.rank)


def _runs(
    m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, evaluating: bool = False
) -> list[tuple[StepKernels, float]]:
    """The kernels of each micro-batch that stands for a share of them all, and that share."""
    found, placed = [], stack_for(recipe, gpu, workload)
    for batch, share in expected(workload, recipe):
        stack = placed.shaped(m, recipe, batch.rows, batch.tokens)
        card = attention_card(m, recipe, batch.tokens, gpu, stack.masks(batch.padded))
        found.append((_kernels(m, recipe, batch, stack, card, evaluating), share))
    return found


@lru_cache(maxsize=256)
def _time(
    m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, profile: DeviceProfile, placement: Placement
) -> TimeEstimate | None:
    """The time of a recipe `_as_computed`."""
    if not gpu.speed_known:
        return None
    m = stack_for(recipe, gpu, workload).built(m)
    runs = _runs(m, recipe, workload, gpu)
    training = time_estimate(m, recipe, workload, gpu, profile, runs, placement)
    if not (recipe.eval_batch and workload.eval_examples):
        return training
    runs = _runs(m, evaluating(recipe), workload, gpu, evaluating=True)
    evaluations = evaluation_seconds(runs, recipe, workload, training.steps, gpu, profile, placement)
    return with_evaluation(training, evaluations)


def estimate(
    model: Model,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    placement: Placement | None = None,
    profile: DeviceProfile | None = None,
) -> Estimate:
    """Memory and time of training `model` by `recipe` on `gpu`, by `profile` or the default of its generation.

    Memory is for the worst micro-batch, time the mean over all (advisor.costs.micro_batches). Time covers the whole job
    over all cards of `placement` (one by default); it is None when the card's speed is unknown. Where the lengths of
    the workload are uncertain, the intervals reach from those of the shortest rows to those of the longest.
    Raises BadValue for an argument of another kind, UnknownName for target modules that the model does not have and
    NotTraced for what a traced model's profile lacks.
    """
    expect("model", model, ModelSpec, TracedModel)
    expect("recipe", recipe, Recipe)
    expect("workload", workload, Workload)
    expect("gpu", gpu, GpuSpec)
    placement = placement or Placement()
    profile = profile or profile_for(gpu)
    expect("placement", placement, Placement)
    expect("profile", profile, DeviceProfile)
    likely = _estimate(model, recipe, workload, gpu, placement, profile)
    ends = workload.ends
    if ends is None:
        return likely
    low, high = (_estimate(model, recipe, end, gpu, placement, profile) for end in ends)
    return likely.model_copy(
        update={
            "memory": _spanning_memory(low.memory, likely.memory, high.memory),
            "time": _spanning_times(low.time, likely.time, high.time),
        }
    )


def estimate_time(
    model: Model,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    placement: Placement,
    profile: DeviceProfile | None = None,
) -> TimeEstimate | None:
    """The time of `estimate` for the same arguments, without the memory that it also works out. Raises as it does."""
    if isinstance(model, TracedModel):
        return estimate(model, recipe, workload, gpu, placement, profile).time
    model = with_pictures(model, workload)
    assert isinstance(model, ModelSpec)
    profile, recipe = profile or profile_for(gpu), _as_computed(recipe)
    likely = _time(model, recipe, workload, gpu, profile, placement)
    ends = workload.ends
    if ends is None:
        return likely
    low, high = (_time(model, recipe, end, gpu, profile, placement) for end in ends)
    return _spanning_times(low, likely, high)


def _spanning_times(
    low: TimeEstimate | None, likely: TimeEstimate | None, high: TimeEstimate | None
) -> TimeEstimate | None:
    if low is None or likely is None or high is None:
        return None
    return _spanning(low, likely, high, DURATIONS)


def _spanning_memory(low: MemoryEstimate, likely: MemoryEstimate, high: MemoryEstimate) -> MemoryEstimate:
    """The same for memory and each of its moments."""
    moments = zip(low.moments, likely.moments, high.moments, strict=True)
    wider = tuple(_spanning(*of_moment, MOMENT_COUNTERS) for of_moment in moments)
    return _spanning(low, likely, high, MEMORY_COUNTERS).model_copy(update={"moments": wider})


def _spanning(low: Spec, likely: Spec, high: Spec, names: Sequence[str]) -> Spec:
    """`likely` with these intervals reaching from those of `low` to those of `high`."""
    found = [(name, [getattr(one, name) for one in (low, likely, high)]) for name in names]
    wider = {name: Interval.spanning(*intervals) for name, intervals in found if None not in intervals}
    return likely.model_copy(update=wider)


def _estimate(
    model: Model, recipe: Recipe, workload: Workload, gpu: GpuSpec, placement: Placement, profile: DeviceProfile
) -> Estimate:
    """The same for rows whose lengths are what the workload says."""
    model = with_pictures(model, workload)
    if isinstance(model, TracedModel):
        return _traced_estimate(model, recipe, workload, gpu, placement, profile)
    batch = worst(workload, recipe)
    stack = stack_for(recipe, gpu, workload)
    model = stack.built(model)
    stack = stack.shaped(model, recipe, batch.rows, batch.tokens)
    card = attention_card(model, recipe, batch.tokens, gpu, stack.masks(batch.padded))
    step = _step_memory(model, _as_computed(recipe), batch, stack, card)
    proof = with_tower(with_store(stack.proof(model, recipe), model, recipe), model, recipe)
    return Estimate(
        recipe=recipe,
        memory=with_unknown_layers(_job_memory(model, recipe, workload, gpu, profile, step), model, recipe),
        time=_time(model, _as_computed(recipe), workload, gpu, profile, placement),
        trainable_parameters=sum(p.elements * p.times for p in trained_shapes(model, recipe)),
        evidence=Evidence(
            rung="formula",
            memory=memory_evidence(stack, proof),
            stack=stack.name,
            unknown=proof.unknown,
            declined=stack.declined(model, recipe),
            time=profile.evidence,
            attention=attention_uses(model, recipe, gpu, step.calls),
        ),
    )


def _traced_estimate(
    model: TracedModel,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    placement: Placement,
    profile: DeviceProfile,
) -> Estimate:
    """The same from a traced profile, whose evaluation is loaded only for such a model."""
    from advisor.costs import traced

    if recipe.eval_batch:
        raise BadValue("--eval-batch", recipe.eval_batch, "must be 0 for a model that was traced: its step alone was")
    length = worst(workload, recipe).tokens
    step = traced.traced_step_memory(model, recipe, length)
    spread = UNFUSED_SPREAD if traced.keeps_more_than_cuda(model, recipe) else TRACED_SPREAD
    time = traced.traced_time(model, recipe, workload, gpu, placement, profile) if gpu.speed_known else None
    rough = NO_TRACED_TIME if gpu.speed_known and time is None else TRACED_TIME.format(profile.evidence)
    return Estimate(
        recipe=recipe,
        memory=memory_estimate(step, recipe, profile, spread, lengths=length_count(workload)),
        time=time,
        trainable_parameters=traced.traced_parameter_count(model, recipe, length),
        evidence=Evidence(rung="trace", memory=TRACED_EVIDENCE.format(model.traced_with), time=rough),
    )
