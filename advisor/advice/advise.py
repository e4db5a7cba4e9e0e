"""The library's entry point: a question in, an Advice out.

knobs -> model, cards, workload -> for each method its best recipe -> rules -> advice
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import advisor.catalog
from advisor.advice.begun import Begun, completed
from advisor.advice.candidates import Row, best_rows, card_times, comparisons, placed_by_row, stand_ins, timing_card
from advisor.advice.job import Estimator, Job, has_bf16, head_loses_chunks
from advisor.advice.meaning import cards_of, data_of, measured_card, model_of, trainer_of
from advisor.advice.notes import (
    assumptions,
    batch_notes,
    card_notes,
    data_notes,
    loss_notes,
    name_notes,
    stand_in_notes,
    task_notes,
    traced_notes,
    trainer_notes,
    variant_notes,
    with_why,
)
from advisor.advice.pictures import image_notes, tower_use
from advisor.advice.posing import Asked, posed
from advisor.advice.verdict import decide, said
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
from advisor.costs.device import DeviceProfile
from advisor.costs.estimation import estimate
from advisor.knobs import KNOBS, read_question
from advisor.rules.context import Context
from advisor.specs import GpuSpec, Method, Model, TracedModel, Workload

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
    begun = begin(
        model, gpu, examples, catalog=catalog, estimator=estimator, progress=progress, simulate=simulate, **knobs
    )
    return completed(begun)


def begin(
    model: str | Model,
    gpu: str | GpuSpec,
    examples: int | None = None,
    *,
    catalog: Catalog = advisor.catalog,
    estimator: Estimator = estimate,
    progress: Progress | None = None,
    simulate: Simulating | None = None,
    **knobs: object,
) -> Begun:
    """The verdict, the methods and the reasons of `advise`, which takes and raises the same.

    Others than `advise` show these before the rest is worked out.
    """
    question = read_question({"examples": examples, **knobs})
    spec = model_of(model, catalog)
    if simulate is not None:
        from advisor.advice.simulation import check

        check(simulate, spec)
    asked, cards, question = cards_of(gpu, catalog, question)
    model_id = catalog.hub_id_of(model if isinstance(model, str) else spec.name)
    data = data_of(question, spec, model if isinstance(model, str) else "", model_id, progress)
    measured: list[Reason] = []
    profile: DeviceProfile | None = None
    if len(cards) == 1:
        cards, profile, measured = measured_card(cards[0])
    named = Asked(question, spec, cards, data, estimator, profile, asked)
    job, preset, stored, ignored = posed(named)
    question, spec, workload = job.question, job.model, job.workload
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
    job = placed_by_row(job, rows)
    context = _context(job, trainer, {method: row.candidate for method, row in rows.items()}, neighbors)
    found, recommendation = decide(context)
    chosen = None if recommendation is None else rows[recommendation.method]
    replay = None if simulate is None or chosen is None else _replayed(job, chosen.candidate, simulate, progress)
    summary = _summary(data, workload, context, recommendation)
    notes = (
        *name_notes(model, spec, catalog),
        *measured,
        *stored,
        *traced_notes(job.model, [method for method in question.methods if method not in _job_methods(job)]),
        *trainer_notes(preset),
        *_mixer_notes(job, chosen, rows),
        *task_notes(spec),
        *stand_in_notes(question),
        *ignored,
        *assumptions(question, workload),
        *image_notes(question, spec, workload),
        *variant_notes(question),
        *loss_notes(question, head_loses_chunks(job)),
        *data_notes(question, summary),
        *card_notes(cards, job.cards, neighbors, other_sizes(asked)),
        *batch_notes(question, workload, job.placement),
        *_evaluation_notes(job, chosen),
        *([] if replay is None else [replay.note]),
    )
    if replay is not None and recommendation is not None and replay.warning is not None:
        warnings = (replay.warning, *recommendation.warnings)
        recommendation = recommendation.model_copy(update={"warnings": warnings})
    advice = Advice(
        model=spec,
        model_id=model_id,
        parameters=context.parameters,
        tower=_tower(context, recommendation),
        gpu=GpuChoice(
            asked=asked,
            cards=context.cards,
            memory_bytes=context.memory_bytes,
            gpus=job.placement.gpus,
            sharding=(chosen or next(iter(rows.values()))).candidate.sharding,
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
        alternatives=_sentences(found) if chosen is None else (),
        engines=(),
        scaling=(),
        frontier=(),
        simulation=None if replay is None else replay.simulation,
        prices=(),
        notes=notes if recommendation else (*notes, *said(context, "warns")),
    )
    return Begun(advice, job, named, chosen, context, neighbors, catalog)


def _mixer_notes(job: Job, chosen: Row | None, rows: Mapping[Method, Row]) -> list[Reason]:
    """What runs layers without attention; loaded only where there are some."""
    if isinstance(job.model, TracedModel) or not job.model.mixers:
        return []
    from advisor.advice.mixers import mixer_notes

    return mixer_notes(job, (chosen or next(iter(rows.values()))).candidate)


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
