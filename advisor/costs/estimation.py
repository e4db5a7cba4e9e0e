"""The one place where the terms meet: a recipe on a card becomes memory, time and their evidence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from advisor.costs.attention import attention_uses
from advisor.costs.card_memory import communication_of, memory_estimate, within_card
from advisor.costs.device import DeviceProfile, profile_for
from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.costs.micro_batches import MicroBatch, evaluating, expected, length_count, worst
from advisor.costs.micro_step import MicroStepTime, StepKernels, mean_of, micro_step_time
from advisor.costs.moments import base_of, predict_evaluation_memory
from advisor.costs.peaks import beginning_peaks, largest, peak_of, reaching
from advisor.costs.spanning import spanning_memory, spanning_times
from advisor.costs.steptime import evaluation_seconds, micro_steps_time, time_estimate, with_evaluation
from advisor.costs.stored import with_store, with_unknown_layers
from advisor.costs.towers import with_tower
from advisor.decoders.kinds import attention_card
from advisor.decoders.stack import Proof, Stack
from advisor.decoders.step import evaluation_program, step_program
from advisor.errors import expect
from advisor.images import with_pictures
from advisor.parameters.trained import trained_shapes
from advisor.specs import (
    Estimate,
    Evidence,
    GpuSpec,
    MemoryEstimate,
    Model,
    ModelSpec,
    Placement,
    Recipe,
    TimeEstimate,
    TracedModel,
    Workload,
)
from advisor.stacks import stack_for

if TYPE_CHECKING:
    from advisor.engines.engine import Engine

REST_OF_EVIDENCE = "fragmentation from a simulated allocator; a default CUDA context"


def memory_evidence(stack: Stack, proof: Proof) -> str:
    """What the bytes of a step of `stack` stand on, in words."""
    parts = [
        f"the step of {stack.name}",
        *(f"traced: {text}" for text in proof.traced),
        *(f"read: {text}" for text in proof.read),
        *(f"not known: {text}" for text in proof.unknown),
    ]
    return "; ".join([*parts, REST_OF_EVIDENCE])


def _job_memory(
    m: ModelSpec,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    placement: Placement,
    profile: DeviceProfile,
    step: StepMemory,
) -> MemoryEstimate:
    """The peak of the job: of its worst step, or of what is before and between steps."""
    lengths, communication = length_count(workload), communication_of(gpu, placement)
    training = memory_estimate(step, recipe, profile, lengths=lengths, communication=communication)
    if lengths > 1:
        training = within_card(training, gpu.memory_bytes, profile.context_bytes.plus(communication))
    quantizes = recipe.is_quantized and not placement.loads_on_host
    if recipe.is_quantized and not quantizes:  # what is spread is loaded on the host, or whole on each card
        training = reaching(training, beginning_peaks(m, base_of(recipe), profile))
    if not (recipe.eval_batch or quantizes):
        return training
    peaks = [peak_of("step", training)]
    if recipe.eval_batch:
        one = evaluating(recipe)
        batch = worst(workload, one)
        stack = stack_for(one, gpu, workload).shaped(m, one, batch.rows, batch.tokens)
        card = attention_card(m, one, batch.tokens, gpu, stack.masks(batch.padded))
        found = step_memory(m, one, batch, stack, card, placement, evaluating=True)
        held = memory_estimate(found, recipe, profile, evaluating=True, communication=communication)
        peaks.append(peak_of("evaluation", held))
    if quantizes:
        peaks += beginning_peaks(m, base_of(recipe), profile)
    return largest(peaks)


def _as_computed(recipe: Recipe) -> Recipe:
    """The recipe without what only the allocator asks: two plans of a search then share what is computed."""
    return recipe.model_copy(update={"expandable_segments": False}) if recipe.expandable_segments else recipe


@lru_cache(maxsize=1024)
def step_memory(
    m: ModelSpec,
    recipe: Recipe,
    batch: MicroBatch,
    stack: Stack,
    card: str,
    placement: Placement,
    evaluating: bool = False,
) -> StepMemory:
    """Computed once for the many cards of a bare size that run the same attention kernels."""
    rows, tokens, padded, packed = batch
    if placement.gpus > 1:
        from advisor.costs.rank_memory import predict_rank_memory  # loaded where several cards share a job

        return predict_rank_memory(
            m,
            recipe,
            placement,
            rows,
            tokens,
            stack=stack,
            padded=padded,
            capability=card,
            packed=packed,
            evaluating=evaluating,
        )
    predict = predict_evaluation_memory if evaluating else predict_step_memory
    return predict(m, recipe, rows, tokens, stack=stack, padded=padded, capability=card, packed=packed)


@lru_cache(maxsize=64)
def _kernels(m: ModelSpec, recipe: Recipe, batch: MicroBatch, stack: Stack, card: str, evaluating: bool) -> StepKernels:
    rows, tokens, padded, packed = batch
    record = evaluation_program if evaluating else step_program
    program = record(m, recipe, rows, tokens, "cuda", stack, padded=padded, capability=card, packed=packed)
    return program.kernels(rows, tokens, recipe.rank)


@lru_cache(maxsize=2048)
def _alone(
    m: ModelSpec, recipe: Recipe, batch: MicroBatch, stack: Stack, card: str, gpu: GpuSpec, profile: DeviceProfile
) -> MicroStepTime:
    """A micro-step on one card: the same in all questions about other numbers of rows, epochs or micro-steps."""
    return micro_step_time(_kernels(m, recipe, batch, stack, card, False), gpu, profile)


def _batches(
    m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec
) -> Iterator[tuple[MicroBatch, Stack, str, float]]:
    """Each micro-batch that stands for a share of them all, the code that runs it, what picks kernels, its share."""
    placed = stack_for(recipe, gpu, workload)
    for batch, share in expected(workload, recipe):
        stack = placed.shaped(m, recipe, batch.rows, batch.tokens)
        yield batch, stack, attention_card(m, recipe, batch.tokens, gpu, stack.masks(batch.padded)), share


def _runs(
    m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, evaluating: bool = False
) -> list[tuple[StepKernels, float]]:
    """The kernels of each micro-batch that stands for a share of them all, and that share."""
    return [
        (_kernels(m, recipe, batch, stack, card, evaluating), share)
        for batch, stack, card, share in _batches(m, recipe, workload, gpu)
    ]


def _micro_step(
    m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, profile: DeviceProfile, engine: Engine | None
) -> MicroStepTime:
    """The mean micro-step of the job."""
    if engine is not None:
        return micro_steps_time(_runs(m, recipe, workload, gpu), recipe, gpu, profile, engine)
    one = recipe.model_copy(update={"gradient_accumulation": min(recipe.gradient_accumulation, 2)})
    return mean_of(
        [
            (_alone(m, one, batch, stack, card, gpu, profile), share)
            for batch, stack, card, share in _batches(m, recipe, workload, gpu)
        ]
    )


def _engine(m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, placement: Placement) -> Engine | None:
    """What the cards exchange; None for one."""
    if placement.gpus == 1:
        return None
    from advisor.engines import engine_for  # loaded where several cards share a job

    return engine_for(m, recipe, placement, stack_for(recipe, gpu, workload))


@lru_cache(maxsize=256)
def _time(
    m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, profile: DeviceProfile, placement: Placement
) -> TimeEstimate | None:
    """The time of a recipe `_as_computed`."""
    if not gpu.speed_known or (placement.offload != "none" and placement.sharding.startswith("zero")):
        return None  # the copies and steps of DeepSpeed on the host explain a quarter of what published rows lose
    m = stack_for(recipe, gpu, workload).built(m)
    engine = _engine(m, recipe, workload, gpu, placement)
    computed = recipe if engine is None else engine.computed()
    micro = _micro_step(m, computed, workload, gpu, profile, engine)
    training = time_estimate(m, recipe, workload, gpu, profile, micro, placement, engine)
    if not (recipe.eval_batch and workload.eval_examples):
        return training
    runs = _runs(m, evaluating(computed), workload, gpu, evaluating=True)
    evaluations = evaluation_seconds(runs, recipe, workload, training.steps, gpu, profile, placement, engine)
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
    one = estimate_untimed(model, recipe, workload, gpu, placement, profile)
    if isinstance(model, TracedModel):
        return one
    return one.model_copy(update={"time": estimate_time(model, recipe, workload, gpu, placement, profile)})


def estimate_untimed(
    model: Model,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    placement: Placement,
    profile: DeviceProfile | None = None,
) -> Estimate:
    """`estimate` for the same arguments without its time, which is None; that of a traced model is whole.

    Raises as `estimate` does.
    """
    profile = profile or profile_for(gpu)
    likely = _estimate(model, recipe, workload, gpu, placement, profile)
    ends = workload.ends
    if ends is None:
        return likely
    low, high = (_estimate(model, recipe, end, gpu, placement, profile) for end in ends)
    return likely.model_copy(
        update={
            "memory": spanning_memory(low.memory, likely.memory, high.memory),
            "time": spanning_times(low.time, likely.time, high.time),
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
    return spanning_times(low, likely, high)


def _estimate(
    model: Model, recipe: Recipe, workload: Workload, gpu: GpuSpec, placement: Placement, profile: DeviceProfile
) -> Estimate:
    """The same for rows whose lengths are what the workload says, without the time but for a traced model."""
    model = with_pictures(model, workload)
    if isinstance(model, TracedModel):
        from advisor.costs.traced_estimation import traced_estimate  # loaded for such a model alone

        return traced_estimate(model, recipe, workload, gpu, placement, profile)
    batch = worst(workload, recipe)
    stack = stack_for(recipe, gpu, workload)
    model = stack.built(model)
    stack = stack.shaped(model, recipe, batch.rows, batch.tokens)
    card = attention_card(model, recipe, batch.tokens, gpu, stack.masks(batch.padded))
    step = step_memory(model, _as_computed(recipe), batch, stack, card, placement)
    memory = _job_memory(model, recipe, workload, gpu, placement, profile, step)
    if (fewest := stack.scoring_fewest) is not None:
        least = step_memory(model, _as_computed(recipe), batch, fewest, card, placement)
        memory = spanning_memory(_job_memory(model, recipe, workload, gpu, placement, profile, least), memory, memory)
    proof = with_tower(with_store(stack.proof(model, recipe), model, recipe), model, recipe)
    if model.unread:
        proof = proof.not_knowing(model.unread)
    if (engine := _engine(model, recipe, workload, gpu, placement)) is not None:
        from advisor.costs.host_memory import machine_bytes
        from advisor.engines.limits import not_known

        proof = proof._replace(unknown=(*proof.unknown, *not_known(model, recipe, engine)))
        taken = machine_bytes(model, recipe, placement, memory.host_bytes)
        memory = memory.model_copy(update={"machine_bytes": taken})
    return Estimate(
        recipe=recipe,
        placement=placement if placement.gpus > 1 else None,
        memory=with_unknown_layers(memory, model, recipe),
        time=None,
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
