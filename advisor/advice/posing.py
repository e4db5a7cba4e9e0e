"""From a question to the job that a trainer makes of it: what it switches on, what it loads, what it sets by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from advisor.advice.job import Estimator, Job, first_recipe, has_bf16
from advisor.advice.meaning import Taken
from advisor.advice.switches import settings_of, switched
from advisor.advice.workload import placement_of, workload_of
from advisor.answer import Reason
from advisor.catalog.trainers import DEFAULT_TRAINER, Preset, find_trainer
from advisor.checkpoints import STORES
from advisor.costs.device import DeviceProfile
from advisor.costs.estimation import estimate, estimate_time, estimate_untimed
from advisor.errors import BadValue
from advisor.images import with_pictures
from advisor.knobs import Question
from advisor.knobs.task import on_task
from advisor.parameters.layers import layer_groups
from advisor.parameters.own_weights import check_own_weights, fails_quantized
from advisor.parameters.paths import named_by
from advisor.parameters.replacing import VERA_RANK
from advisor.parameters.targets import adapts_experts, resolve_targets
from advisor.rules.lora_for_speed import DEFAULT_RANK, HIGH_RANK, MANY_EXAMPLES
from advisor.specs import CAUSAL, QUANTIZED_METHODS, REPLACING, GpuSpec, Method, Model, ModelSpec, TracedModel

if TYPE_CHECKING:
    from advisor.dataset.summary import Measured


class Asked(NamedTuple):
    """A question and what it names, whatever trainer runs it."""

    question: Question
    model: Model
    cards: tuple[GpuSpec, ...]
    data: Measured | None
    estimator: Estimator
    profile: DeviceProfile | None
    """How the card was measured."""
    gpu: str = ""
    """What the question calls the card, without their number."""

    def fixing(self, settings: Mapping[str, object]) -> Asked:
        """The same with knobs set."""
        return self._replace(question=self.question.fixing(settings))


class Posed(NamedTuple):
    """The job that a trainer makes of a question."""

    job: Job
    preset: Preset
    stored: tuple[Reason, ...]
    """What there is to say about the checkpoint."""
    ignored: tuple[Reason, ...]
    """What the trainer goes on without."""


def posed(asked: Asked) -> Posed:
    """The job of the trainer that the question names.

    Raises BadValue or InputError for what the trainer, the model or its checkpoint cannot do.
    """
    preset = find_trainer(asked.question.trainer or DEFAULT_TRAINER, asked.question.gpus or 1)
    spec = on_task(asked.model, asked.question)
    question, ignored = switched(preset, asked.question, architecture=spec.architecture)
    stack = question.stack or preset.stack
    if stack:
        from advisor.parameters.stored import as_stored
        from advisor.stacks import named_stack

        spec = as_stored(spec, stack)
        if isinstance(spec, ModelSpec):
            spec = named_stack(stack).named(spec)
    taken = _taken(question, spec, asked.cards, preset)
    question, spec = taken.question, taken.model
    question = _with_full_loss(question, spec)
    if question.target_modules is not None and isinstance(spec, ModelSpec):
        question = question.fixing({"target_modules": named_by(spec, question.target_modules)})
    methods = tuple(method for method in taken.methods if method in preset.methods)
    if question.method is None and isinstance(spec, ModelSpec) and fails_quantized(spec):
        methods = tuple(method for method in methods if method not in QUANTIZED_METHODS)
    job = _job(asked, question, spec, preset)._replace(methods=methods)
    if job.placement.gpus > 1 and isinstance(spec, ModelSpec):
        from advisor.advice.sharding import with_only_engine  # loaded where several cards share a job

        job = with_only_engine(job)
    if job.placement.gpus > 1 and question.method is None and not job.placement.copies_model:
        from advisor.engines.limits import refusal  # loaded where several cards share a job

        why = {one: refusal(job.model, first_recipe(job, one), job.placement) for one in methods}
        if all(why.values()) and len(set(why.values())) == 1:
            raise BadValue("--sharding", job.placement.effective_sharding, why[methods[0]])
        job = job._replace(methods=tuple(one for one in methods if not why[one]) or methods)
    return Posed(job, preset, taken.notes, tuple(ignored))


def _with_full_loss(question: Question, spec: Model) -> Question:
    """A loss on anything but next tokens does not come in chunks, whatever a trainer does with that one."""
    if not isinstance(spec, ModelSpec) or spec.kind == CAUSAL:
        return question
    if question.loss == "chunked":
        raise BadValue(
            "--loss", "chunked", f"{spec.name} has no loss on next tokens, which alone comes in chunks; leave it out"
        )
    return question.fixing({"loss": "full"})


def _taken(question: Question, spec: Model, cards: tuple[GpuSpec, ...], preset: Preset) -> Taken:
    """The question as the model's checkpoint lets it be; loaded only where that may change anything."""
    plain = isinstance(spec, TracedModel) or spec.checkpoint is None
    if plain and (question.quant is None or STORES[question.quant].by_bitsandbytes):
        return Taken(question, spec)
    from advisor.advice.stored import taken_as_stored

    return taken_as_stored(question, spec, cards, preset)


def _job(asked: Asked, question: Question, spec: Model, preset: Preset) -> Job:
    """The job to find recipes for. Of several cards, those without bf16 are left out if others have it."""
    collator = preset.collator(architecture=spec.architecture, loss=question.loss)
    workload = workload_of(question, spec, asked.data, collator)
    spec = with_pictures(spec, workload)
    _check(question, spec)
    smallest = question.priority == "memory"
    many = workload.examples >= MANY_EXAMPLES and not smallest
    job = Job(
        spec,
        workload,
        placement_of(question),
        tuple(card for card in asked.cards if has_bf16(card)) or asked.cards,
        question,
        asked.estimator,
        estimate_time if asked.estimator is estimate else None,
        estimate_untimed if asked.estimator is estimate else None,
        rank=VERA_RANK if question.variant == "vera" else HIGH_RANK if many else DEFAULT_RANK,
        smallest=smallest,
        preset=settings_of(preset, question, spec),
        collator=collator,
        profile=asked.profile,
        data=asked.data,
    )
    return job._replace(traced=_traced_ways(job, spec)) if isinstance(spec, TracedModel) else job


def _check(question: Question, spec: Model) -> None:
    """Raises InputError for modules and layers that the model does not have, and for what its task cannot take."""
    if isinstance(spec, ModelSpec):
        if question.target_modules is not None and question.method != "full":
            resolve_targets(spec, question.target_modules)
        if question.quantize_experts:
            _check_experts(question, spec)
        if question.variant in REPLACING and question.method not in ("lora", "qlora"):
            raise BadValue("--variant", question.variant, "must be asked for with --method lora or --method qlora")
        if question.modules_to_save or question.trained_layers:
            check_own_weights(spec, question.modules_to_save or (), question.trained_layers or 0)
        if spec.task in ("embeddings", "classification") and question.packing:
            raise BadValue("--packing", "on", f"{spec.name} is trained on whole texts, one a row; leave it out")


def _check_experts(question: Question, spec: ModelSpec) -> None:
    """Raises BadValue for a model without stacks of experts, and for what nobody knows a step with such stacks of."""
    why, targets, dora = "", question.target_modules or ("all-linear",), question.method in ("dora", "qdora")
    reached = any(adapts_experts(part, targets, dora, question.dropout or 0.0) for part, _ in layer_groups(spec))
    if not spec.num_experts or spec.experts == "linears":
        why = f"{spec.name} has no stacks of experts; leave it out"
    elif spec.mlp == "llama4_experts":
        why = f"what a step of {spec.architecture} does with stacks of experts in 4 bits is not known; leave it out"
    elif question.method != "full" and reached:
        why = "what a step does with adapters on stacks of experts in 4 bits is not known; name --target-modules"
    if why:
        raise BadValue("--quantize-experts", "on", f"must not be asked for: {why}")


def _traced_ways(job: Job, model: TracedModel) -> dict[Method, tuple[bool, ...]]:
    """The checkpointing settings that were traced, by method. Raises NotTraced if no method's recipe was traced."""
    from advisor.costs.traced import traced_ways

    methods = job.question.methods
    recipes = {method: first_recipe(job, method) for method in methods}
    found = {method: ways for method in methods if (ways := traced_ways(model, recipes[method]))}
    if not found:
        job.estimate(recipes[methods[0]])  # says what was traced
    return found
