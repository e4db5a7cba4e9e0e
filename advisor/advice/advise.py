"""The library's entry point: a question in, an Advice out.

knobs -> model, cards, workload -> for each method its best recipe -> rules -> advice
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import advisor.catalog
from advisor.advice.candidates import Row, best_rows, card_times, comparisons, stand_ins, timing_card
from advisor.advice.job import Estimator, Job, first_recipe, has_bf16, head_loses_chunks
from advisor.advice.meaning import Taken, cards_of, data_of, measured_card, model_of, trainer_of
from advisor.advice.notes import (
    assumptions,
    batch_notes,
    card_notes,
    data_notes,
    loss_notes,
    name_notes,
    stand_in_notes,
    traced_notes,
    trainer_notes,
    variant_notes,
    with_why,
)
from advisor.advice.pictures import image_notes, tower_use
from advisor.advice.prices import frontier, prices
from advisor.advice.switches import implied, switched
from advisor.advice.verdict import decide, said
from advisor.advice.workload import placement_of, workload_of
from advisor.answer import (
    Advice,
    Candidate,
    Change,
    DataSummary,
    GpuChoice,
    Reason,
    Recommendation,
    TowerUse,
    TrainerChoice,
)
from advisor.catalog.gpus import other_sizes
from advisor.catalog.trainers import DEFAULT_TRAINER, SWITCHED, Preset, find_trainer
from advisor.checkpoints import STORES
from advisor.costs.device import DeviceProfile
from advisor.costs.estimation import estimate, estimate_time
from advisor.errors import BadValue
from advisor.images import with_pictures
from advisor.knobs import KNOBS, Question, read_question
from advisor.parameters.own_weights import check_own_weights
from advisor.parameters.paths import named_by
from advisor.parameters.targets import resolve_targets
from advisor.rules.context import Context
from advisor.rules.lora_for_speed import DEFAULT_RANK, HIGH_RANK, MANY_EXAMPLES
from advisor.specs import METHODS, GpuSpec, Method, Model, ModelSpec, Placement, TracedModel, Workload

if TYPE_CHECKING:
    from advisor.advice.catalogs import Catalog
    from advisor.advice.simulation import Replayed, Simulating
    from advisor.dataset.rows import Progress
    from advisor.dataset.summary import Measured


def advise(
    model: str | Model,
    gpu: str | GpuSpec,
    examples: int | None = None,
    *,
    catalog: Catalog = advisor.catalog,
    estimator: Estimator = estimate,
    progress: Progress | None = None,
    simulate: Simulating | None = None,
    **knobs: object,
) -> Advice:
    """Recommend a method for fine-tuning `model` on `gpu`, with its recipe, memory and time.

    `knobs` are the command line's flags with underscores (advisor.knobs.KNOBS); None leaves one open. `progress` is
    told, while a data file is read, how many of how many bytes (of Parquet: rows) are done, and while a job is
    replayed, how many of how many steps. `simulate` replays the recommended plan's job through PyTorch's allocator.
    Raises AdvisorError: UnknownName and BadValue for bad input, SourceUnavailable for a source that cannot be reached.
    """
    question = read_question({"examples": examples, **knobs})
    spec = model_of(model, catalog)
    if question.stack:
        from advisor.parameters.stored import as_stored

        spec = as_stored(spec, question.stack)
    if simulate is not None:
        from advisor.advice.simulation import check

        check(simulate, spec)
    asked, cards, question = cards_of(gpu, catalog, question)
    model_id = catalog.hub_id_of(model if isinstance(model, str) else spec.name)
    placement = placement_of(question)
    data = data_of(question, spec, model if isinstance(model, str) else "", model_id, progress)
    preset = find_trainer(question.trainer or DEFAULT_TRAINER)
    question, ignored = switched(preset, question, architecture=spec.architecture)
    taken = _taken(question, spec, cards, preset)
    question, spec = taken.question, taken.model
    workload = workload_of(question, spec, data, preset.collator)
    spec = with_pictures(spec, workload)
    measured: list[Reason] = []
    profile: DeviceProfile | None = None
    if len(cards) == 1:
        cards, profile, measured = measured_card(cards[0])
    if question.target_modules is not None and isinstance(spec, ModelSpec):
        question = question.fixing({"target_modules": named_by(spec, question.target_modules)})
    job = _job(spec, cards, workload, placement, question, estimator, preset, profile)._replace(
        data=data, methods=taken.methods
    )
    trainer = trainer_of(preset, question)
    neighbors = stand_ins(job, catalog)
    rows = best_rows(job, _job_methods(job), neighbors)
    if any(row.candidate.recipe.eval_batch for row in rows.values()):
        from advisor.advice.evaluation import smaller_evaluation, smaller_note

        smaller = smaller_evaluation(job, rows)
        if smaller:
            default = next(iter(rows.values())).candidate.recipe.eval_batch
            measured = [*measured, smaller_note(default, smaller)]
            job = job._replace(question=job.question.fixing({"eval_batch": smaller}))
            rows = best_rows(job, _job_methods(job), neighbors)
    context = _context(job, trainer, {method: row.candidate for method, row in rows.items()}, neighbors)
    found, recommendation = decide(context)
    chosen = None if recommendation is None else rows[recommendation.method]
    replay = None if simulate is None or chosen is None else _replayed(job, chosen.candidate, simulate, progress)
    summary = _summary(data, workload, context, recommendation)
    notes = (
        *name_notes(model, spec, catalog),
        *measured,
        *taken.notes,
        *traced_notes(job.model, [method for method in question.methods if method not in _job_methods(job)]),
        *trainer_notes(preset),
        *stand_in_notes(question),
        *ignored,
        *assumptions(question, workload),
        *image_notes(question, spec, workload),
        *variant_notes(question),
        *loss_notes(question, head_loses_chunks(job)),
        *data_notes(question, summary),
        *card_notes(cards, job.cards, neighbors, other_sizes(asked)),
        *batch_notes(question, workload, placement),
        *_evaluation_notes(job, chosen),
        *([] if replay is None else [replay.note]),
    )
    if replay is not None and recommendation is not None and replay.warning is not None:
        warnings = (replay.warning, *recommendation.warnings)
        recommendation = recommendation.model_copy(update={"warnings": warnings})
    return Advice(
        model=spec,
        model_id=model_id,
        parameters=context.parameters,
        tower=_tower(context, recommendation),
        gpu=GpuChoice(
            asked=asked,
            cards=context.cards,
            memory_bytes=context.memory_bytes,
            gpus=placement.gpus,
            sharding=placement.effective_sharding,
            bf16=context.has_bf16,
        ),
        workload=workload,
        data_file=data.file if data else None,
        data=summary,
        priority=context.priority,
        trainer=trainer,
        fixed=question.fixed,
        chosen=tuple(
            k.name
            for k in KNOBS
            if k.home in ("workload", "recipe") and k.name not in question.fixed and k.name not in trainer.knobs
        ),
        recommendation=recommendation,
        candidates=_compared(job, context, recommendation, neighbors, replay),
        alternatives=() if recommendation else (*_sentences(found), *_remedies(job, context, catalog)),
        frontier=() if chosen is None else frontier(job, chosen, neighbors),
        simulation=None if replay is None else replay.simulation,
        prices=() if chosen is None else prices(job, chosen.candidate, neighbors),
        notes=notes if recommendation else (*notes, *said(context, "warns")),
    )


def _taken(question: Question, spec: Model, cards: tuple[GpuSpec, ...], preset: Preset) -> Taken:
    """The question as the model's checkpoint lets it be; loaded only where that may change anything."""
    plain = isinstance(spec, TracedModel) or spec.checkpoint is None
    if plain and (question.quant is None or STORES[question.quant].by_bitsandbytes):
        return Taken(question, spec)
    from advisor.advice.stored import taken_as_stored

    return taken_as_stored(question, spec, cards, preset)


def _tower(context: Context, recommendation: Recommendation | None) -> TowerUse | None:
    """What the model's vision tower takes, by the recommended recipe; where nothing fits, by the first."""
    method = recommendation.method if recommendation else next(iter(context.candidates))
    return tower_use(context.model, context.candidates[method].recipe)


def _evaluation_notes(job: Job, chosen: Row | None) -> list[Reason]:
    """What there is to say about evaluation and loading; loaded only where there is something."""
    if chosen is None or not (chosen.candidate.recipe.eval_batch or chosen.candidate.memory.highest != "step"):
        return []
    from advisor.advice.evaluation import evaluation_notes

    return evaluation_notes(job, chosen.candidate)


def _summary(
    data: Measured | None, workload: Workload, context: Context, recommendation: Recommendation | None
) -> DataSummary | None:
    """What the recommended recipe makes of the data file's rows; where nothing fits, the first method's."""
    if data is None:
        return None
    from advisor.dataset.summary import summary_of

    method = recommendation.method if recommendation else next(iter(context.candidates))
    return summary_of(data, workload, context.candidates[method].recipe.micro_batch)


def _compared(
    job: Job,
    context: Context,
    recommendation: Recommendation | None,
    stand_ins: tuple[GpuSpec, ...],
    replay: Replayed | None,
) -> tuple[Candidate, ...]:
    """The rows, each compared with the recommended one, which also gets its replay and its times on single cards."""
    rows = dict(context.candidates)
    beside = {}
    if recommendation is not None:
        chosen = rows[recommendation.method] if replay is None else replay.row
        rows[chosen.method] = chosen.model_copy(update={"card_times": card_times(job, chosen, stand_ins)})
        beside = comparisons(job, rows, chosen.method)
    return tuple(with_why(row, context, recommendation, beside.get(row.method)) for row in rows.values())


def _replayed(job: Job, row: Candidate, asked: Simulating, progress: Progress | None) -> Replayed:
    """The recommended row after the replay of its job, which is loaded only when it is asked for."""
    from advisor.advice.simulation import replayed

    return replayed(job, row, asked, progress)


def _sentences(reasons: tuple[Reason, ...]) -> tuple[Change, ...]:
    """What a rule says when nothing fits, among the changes that would."""
    return tuple(Change(**dict(reason)) for reason in reasons)


def _remedies(job: Job, context: Context, catalog: Catalog) -> tuple[Change, ...]:
    """What would fit; the search for it is loaded only when nothing does."""
    from advisor.advice.remedies import remedies

    return remedies(job, context.candidates, catalog)


def _job(
    spec: Model,
    cards: tuple[GpuSpec, ...],
    workload: Workload,
    placement: Placement,
    question: Question,
    estimator: Estimator,
    preset: Preset,
    profile: DeviceProfile | None,
) -> Job:
    """The job to find recipes for. Of several cards, those without bf16 are left out if others have it."""
    targets = question.target_modules
    if isinstance(spec, ModelSpec):
        if targets is not None and question.method != "full":
            resolve_targets(spec, targets)
        if question.variant == "oft" and question.method not in ("lora", "qlora"):
            raise BadValue("--variant", "oft", "must be asked for with --method lora or --method qlora")
        if question.modules_to_save or question.trained_layers:
            check_own_weights(spec, question.modules_to_save or (), question.trained_layers or 0)
    smallest = question.priority == "memory"
    many = workload.examples >= MANY_EXAMPLES and not smallest
    job = Job(
        spec,
        workload,
        placement,
        tuple(card for card in cards if has_bf16(card)) or cards,
        question,
        estimator,
        estimate_time if estimator is estimate else None,
        rank=HIGH_RANK if many else DEFAULT_RANK,
        smallest=smallest,
        preset={method: _preset_of(preset, question, method, spec) for method in METHODS},
        collator=preset.collator,
        profile=profile,
    )
    return job._replace(traced=_traced_ways(job, spec)) if isinstance(spec, TracedModel) else job


def _preset_of(preset: Preset, question: Question, method: Method, spec: Model) -> dict[str, object]:
    """What the trainer sets for `method`; a trace is of transformers' own code, without what a trainer switches on."""
    values = {**preset.values(method), **implied(preset, question, method)}
    traced = isinstance(spec, TracedModel)
    return {name: value for name, value in values.items() if not (traced and name in SWITCHED)}


def _traced_ways(job: Job, model: TracedModel) -> dict[Method, tuple[bool, ...]]:
    """The checkpointing settings that were traced, by method. Raises NotTraced if no method's recipe was traced."""
    from advisor.costs.traced import traced_ways

    methods = job.question.methods
    recipes = {method: first_recipe(job, method) for method in methods}
    found = {method: ways for method in methods if (ways := traced_ways(model, recipes[method]))}
    if not found:
        job.estimate(recipes[methods[0]])  # says what was traced
    return found


def _context(
    job: Job, trainer: TrainerChoice, candidates: Mapping[Method, Candidate], stand_ins: tuple[GpuSpec, ...]
) -> Context:
    """What the rules look at: the candidates and the question."""
    card, timing = job.smallest_card, timing_card(job, stand_ins)
    return Context(
        model=job.model,
        workload=job.workload,
        placement=job.placement,
        priority=job.question.priority or "quality",
        memory_bytes=card.memory_bytes,
        cards=tuple(one.name for one in job.cards),
        has_bf16=has_bf16(card),
        question=job.question,
        candidates=candidates,
        estimate=job.estimate,
        time_of=lambda recipe: job.time_on(timing, recipe),
        trainer=trainer,
    )


def _job_methods(job: Job) -> tuple[Method, ...]:
    """The methods in question that the checkpoint allows; for a traced model, only those that were traced."""
    methods = (method for method in job.question.methods if method in job.methods)
    return tuple(method for method in methods if job.traced is None or method in job.traced)
