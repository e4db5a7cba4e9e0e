"""The rows of an answer: the best plan of each method, with its time over all cards and its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from advisor.advice.card_times import time_over_cards
from advisor.advice.job import Job, first_recipe, has_bf16, verdict_of
from advisor.advice.search import Outcome, best_outcome
from advisor.answer import Candidate, CardTime, Comparison, Plan
from advisor.errors import InputError
from advisor.recipes import like
from advisor.rules.premise import EVERYWHERE, PLAIN, over_plain
from advisor.specs import DORA_METHODS, Estimate, GpuSpec, Method, ModelSpec, TracedModel

if TYPE_CHECKING:
    from advisor.advice.catalogs import Catalog

ATTENTION = ("attention",)


class Row(NamedTuple):
    """A method's best plan, and every plan of it that fits."""

    candidate: Candidate
    fitting: tuple[Estimate, ...]


def placed_by_row(job: Job, rows: Mapping[Method, Row]) -> Job:
    """The job with each method spread as its row is."""
    found = {method: row.candidate.placement for method, row in rows.items() if row.candidate.placement is not None}
    return job._replace(placements=found) if found else job


def stand_ins(job: Job, catalog: Catalog) -> tuple[GpuSpec, ...]:
    """Cards with about the same memory, whose times stand in for those of a card of unknown speed."""
    if any(card.speed_known or card.unified_memory for card in job.cards) or isinstance(job.model, TracedModel):
        return ()  # and no ordinary card stands in for one whose memory is the CPU's
    near = catalog.cards_near(job.smallest_card.memory_bytes)
    return tuple(card for card in near if has_bf16(card)) or near


def timing_card(job: Job, stand_ins: tuple[GpuSpec, ...]) -> GpuSpec:
    """The first card of known speed, for the ratio of two times."""
    return next((card for card in (*job.cards, *stand_ins) if card.speed_known), job.smallest_card)


def best_rows(job: Job, methods: Sequence[Method], stand_ins: tuple[GpuSpec, ...]) -> dict[Method, Row]:
    """The best plan of each method, in the order of `methods`; each is what it would be alone."""
    found: dict[Method, Outcome] = {}
    return {method: _row(job, searched(job, method, stand_ins, found), stand_ins) for method in methods}


def searched(
    job: Job, method: Method, stand_ins: tuple[GpuSpec, ...] = (), known: dict[Method, Outcome] | None = None
) -> Outcome:
    """The best outcome of `method`: of DoRA at the targets where its premise holds, unless they are fixed.

    `known` keeps outcomes that were found on the way.
    """
    known = {} if known is None else known
    if method not in known:
        if method in DORA_METHODS and _targets_open(job):
            plain = searched(job, PLAIN[method], stand_ins, known)
            card = timing_card(job, stand_ins)
            recipe = like(first_recipe(job, method), plain.estimate.recipe)
            at = job.placed(plain.estimate)
            ratio = over_plain(job.model, lambda one: at.time_on(card, one), recipe)
            if ratio is not None and ratio > EVERYWHERE:
                job = job._replace(targets=ATTENTION)
        known[method] = best(job, method)
    return known[method]


def best(job: Job, method: Method) -> Outcome:
    """The best plan; of several cards under the best engine, the search for which is loaded only then."""
    if job.placement.gpus == 1 or method in job.placements:
        return best_outcome(job, method)
    from advisor.advice.sharding import best_placed

    return best_placed(job, method)


def _targets_open(job: Job) -> bool:
    """Whether DoRA's targets are to be chosen by time: not where memory alone is compared."""
    return (
        not job.smallest
        and job.question.target_modules is None
        and isinstance(job.model, ModelSpec)
        and job.default_targets == ("all-linear",)
    )


def _row(job: Job, outcome: Outcome, stand_ins: tuple[GpuSpec, ...]) -> Row:
    job = job.placed(outcome.estimate)
    best = plan_of(job, outcome.estimate, stand_ins)
    least = best if outcome.least is outcome.estimate else plan_of(job, outcome.least, stand_ins)
    return Row(Candidate(method=best.recipe.method, least=least, **dict(best)), outcome.fitting)


def plan_of(job: Job, one: Estimate, stand_ins: tuple[GpuSpec, ...]) -> Plan:
    """An estimate for the smallest card with its verdict, and its time over all cards and its price."""
    verdict = verdict_of(one, job.smallest_card.memory_bytes)
    time, fastest, slowest = one.time, "", ""
    spans = len(job.cards) > 1 or bool(stand_ins)
    if spans and verdict != "does_not_fit":  # what never runs needs no range of times
        times = time_over_cards(job, one, stand_ins or job.cards)
        time = None if times is None else times.time
        fastest, slowest = ("", "") if times is None else (times.fastest, times.slowest)
    price = job.question.price_per_hour
    return Plan(
        recipe=one.recipe,
        verdict=verdict,
        memory=one.memory,
        time=time,
        evidence=one.evidence,
        placement=one.placement,
        trainable_parameters=one.trainable_parameters,
        cost=time.total_s.times(price * job.placement.gpus / 3600) if time is not None and price else None,
        fastest_card=fastest,
        slowest_card=slowest,
    )


def card_times(job: Job, plan: Plan, stand_ins: tuple[GpuSpec, ...]) -> tuple[CardTime, ...]:
    """How long a plan takes on the fastest, the usual (median) and the slowest of several cards, in this order."""
    if plan.fastest_card == plan.slowest_card:
        return ()
    times = {card.name: job.time_on(card, plan.recipe) for card in stand_ins or job.cards if card.speed_known}
    timed = [CardTime(card=name, total_s=time.total_s) for name, time in times.items() if time is not None]
    timed.sort(key=lambda one: one.total_s.likely)
    ends = (timed[0], timed[len(timed) // 2], timed[-1])
    return tuple({one.card: one for one in ends}.values())


def comparisons(job: Job, rows: Mapping[Method, Candidate], recommended: Method) -> dict[Method, Comparison]:
    """Every other method that fits, by the recommended row's recipe; a traced model lacks those not traced."""
    base = job.estimate(rows[recommended].recipe)
    job = job.placed(base)
    found: dict[Method, Comparison] = {}
    for method, row in rows.items():
        if method == recommended or row.verdict == "does_not_fit":
            continue
        try:
            one = job.estimate(like(first_recipe(job, method), base.recipe))
        except InputError:
            continue
        timed = one.time is not None and base.time is not None and base.time.total_s.likely > 0
        found[method] = Comparison(
            memory_bytes=one.memory.needed_bytes.likely - base.memory.needed_bytes.likely,
            time_ratio=one.time.total_s.likely / base.time.total_s.likely if timed else None,  # type: ignore[union-attr]
            trainable_parameters=one.trainable_parameters,
        )
    return found
