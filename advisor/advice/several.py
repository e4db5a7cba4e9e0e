"""The recommended method on several cards another way: under each engine, and on fewer or more cards.

Loaded only where several cards share a job, or where nothing fits on one.
"""

from __future__ import annotations

from collections.abc import Iterator

from advisor.advice.candidates import best, plan_of
from advisor.advice.job import Job
from advisor.advice.search import Outcome, best_outcome
from advisor.advice.sharding import open_to, runnable
from advisor.advice.switches import settings_of
from advisor.answer import Candidate, Spread
from advisor.errors import InputError
from advisor.specs import GpuSpec, Method, ModelSpec

NODE_GPUS = 8
"""Cards of a usual machine: more of them are in further ones."""


def by_engine(job: Job, row: Candidate, stand_ins: tuple[GpuSpec, ...]) -> tuple[Spread, ...]:
    """The best plan of the row's method under each engine that can run it, the row's own among them."""
    if row.placement is None or not isinstance(job.model, ModelSpec):
        return ()
    job, found = _like(job, row), []
    others = open_to(job, row.method) if row.placement.offload == "none" else ()
    for placement in runnable(job, row.method, row.placement, dict.fromkeys((row.sharding, *others))):
        at = job._replace(placement=placement, placements={})
        try:
            outcome = best_outcome(at, row.method)
        except InputError:
            continue
        found.append(Spread(gpus=placement.gpus, plan=plan_of(at, outcome.estimate, stand_ins)))
    return tuple(found)


def _like(job: Job, row: Candidate) -> Job:
    """The job with the row's rank and target modules, where the question leaves them open."""
    if not row.recipe.has_adapters:
        return job
    return job._replace(rank=row.recipe.rank, targets=row.recipe.target_modules)


def counts(job: Job) -> Iterator[int]:
    """Numbers of cards beside the job's own: half, twice and four times as many, and one; each divides the batch."""
    gpus = job.placement.gpus
    for count in sorted({1, gpus // 4, gpus // 2, gpus, 2 * gpus, 4 * gpus, *((2, 4, 8) if gpus <= NODE_GPUS else ())}):
        if count and job.workload.batch_size % count == 0:
            yield count


def on_other_counts(job: Job, row: Candidate, stand_ins: tuple[GpuSpec, ...]) -> tuple[Spread, ...]:
    """The best plan of the row's method on fewer and on more cards, with the same rows in an optimizer step."""
    job, found = _like(job, row), []
    for count in counts(job):
        at = job_on(job, count)
        if at is None:
            continue
        try:
            outcome = best(at, row.method)
        except InputError:
            continue
        at = at.placed(outcome.estimate)
        found.append(Spread(gpus=count, plan=plan_of(at, outcome.estimate, stand_ins)))
    return tuple(found)


def job_on(job: Job, gpus: int) -> Job | None:
    """The same job as its trainer runs it on so many cards, in as full machines as before; None if it cannot be."""
    placement = job.placement
    per_node = placement.node_gpus if placement.nodes > 1 else max(NODE_GPUS, placement.gpus)
    nodes = -(-gpus // per_node)
    if gpus % nodes or job.workload.batch_size % gpus or (nodes > 1 and not placement.network_gbit):
        return None
    rows = job.question.micro_batch
    if rows is not None and job.workload.batch_size // gpus % rows:
        return None
    changes = {"gpus": gpus, "nodes": nodes}
    if gpus == 1:
        changes |= {"sharding": "none", "offload": "none"}  # type: ignore[dict-item]
    there = job._replace(placement=placement.model_copy(update=changes), placements={})
    return there._replace(preset=settings_of(there.trainer, job.question, job.model))


def fitting_count(job: Job, method: Method, most: int) -> tuple[Job, Outcome] | None:
    """The job on the fewest cards, up to `most`, on which the method surely fits, and how; None where it never does."""
    gpus = job.placement.gpus
    while gpus < most:
        gpus *= 2
        at = job_on(job, gpus)
        if at is None:
            continue
        try:
            outcome = best(at, method)
        except InputError:
            return None
        if outcome.verdict == "fits":
            return at.placed(outcome.estimate), outcome
    return None
