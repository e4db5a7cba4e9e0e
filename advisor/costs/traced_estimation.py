"""A recipe for a traced model on a card: what `costs.estimation` says of others, from the model's profile."""

from __future__ import annotations

from advisor.costs import traced
from advisor.costs.card_memory import communication_of, memory_estimate
from advisor.costs.device import DeviceProfile
from advisor.costs.micro_batches import length_count, worst
from advisor.errors import BadValue
from advisor.specs import Estimate, Evidence, GpuSpec, Placement, Recipe, TracedModel, Workload

TRACED_SPREAD = (0.05, 0.05)
UNFUSED_SPREAD = (0.4, 0.05)
"""The same for a model that was traced: no CUDA kernel is mirrored. With dropout, a CPU keeps masks and all attention
scores, where CUDA's kernels keep a seed: the bytes are then an upper bound."""

TRACED_EVIDENCE = "this model's own CPU step, traced with {}; not what CUDA's kernels keep"
TRACED_TIME = "FLOP and memory traffic of the trace, without kernel shapes: rough; {}"
NO_TRACED_TIME = "no time: the mean length of a row was not traced"


def traced_estimate(
    model: TracedModel,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    placement: Placement,
    profile: DeviceProfile,
) -> Estimate:
    """Memory and time of a recipe on a card, from the profile of a model that was traced."""
    if recipe.eval_batch:
        raise BadValue("--eval-batch", recipe.eval_batch, "must be 0 for a model that was traced: its step alone was")
    length = worst(workload, recipe).tokens
    step = traced.traced_step_memory(model, recipe, length)
    spread = UNFUSED_SPREAD if traced.keeps_more_than_cuda(model, recipe) else TRACED_SPREAD
    time = traced.traced_time(model, recipe, workload, gpu, placement, profile) if gpu.speed_known else None
    rough = NO_TRACED_TIME if gpu.speed_known and time is None else TRACED_TIME.format(profile.evidence)
    return Estimate(
        recipe=recipe,
        memory=memory_estimate(
            step,
            recipe,
            profile,
            spread,
            lengths=length_count(workload),
            communication=communication_of(gpu, placement),
        ),
        time=time,
        trainable_parameters=traced.traced_parameter_count(model, recipe, length),
        evidence=Evidence(rung="trace", memory=TRACED_EVIDENCE.format(model.traced_with), time=rough),
    )
