"""The rows of an answer: the best recipe of each method, with its time over all cards and its price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advisor.advice.search import Job, Outcome, best_outcome, has_bf16, time_over_cards
from advisor.answer import Candidate
from advisor.specs import GpuSpec, Method, TracedModel

if TYPE_CHECKING:
    from advisor.advice.remedies import Catalog

# Each method; its counterpart without DoRA, which needs no more memory; the method whose answer is likely to be close.
_SEARCH_ORDER: tuple[tuple[Method, Method, Method], ...] = (
    ("lora", "lora", "lora"),
    ("dora", "lora", "lora"),
    ("qlora", "qlora", "lora"),
    ("qdora", "qlora", "qlora"),
    ("full", "full", "dora"),
)


def stand_ins(job: Job, catalog: Catalog) -> tuple[GpuSpec, ...]:
    """Cards with about the same memory, whose times stand in for those of a card of unknown speed."""
    if any(card.speed_known or card.unified_memory for card in job.cards) or isinstance(job.model, TracedModel):
        return ()  # and no ordinary card stands in for one whose memory is the CPU's
    near = catalog.cards_near(job.smallest_card.memory_bytes)
    return tuple(card for card in near if has_bf16(card)) or near


def best_candidates(job: Job, methods: Sequence[Method], stand_ins: tuple[GpuSpec, ...]) -> dict[Method, Candidate]:
    """The best recipe of each method, in the order of `methods`."""
    found: dict[Method, Outcome] = {}
    for method, plain, like in _SEARCH_ORDER:
        if method in methods:
            hints = found[like].largest if like in found else None
            found[method] = best_outcome(job, method, hints, found.get(plain) if plain != method else None)
    return {method: _candidate(job, found[method], stand_ins) for method in methods}


def _candidate(job: Job, outcome: Outcome, stand_ins: tuple[GpuSpec, ...]) -> Candidate:
    one = outcome.estimate
    time, fastest, slowest = one.time, "", ""
    spans = len(job.cards) > 1 or bool(stand_ins)
    if spans and outcome.verdict != "does_not_fit":  # what never runs needs no range of times
        times = time_over_cards(job, one, stand_ins or job.cards)
        time = None if times is None else times.time
        fastest, slowest = ("", "") if times is None else (times.fastest, times.slowest)
    price = job.question.price_per_hour
    return Candidate(
        method=one.recipe.method,
        recipe=one.recipe,
        verdict=outcome.verdict,
        memory=one.memory,
        time=time,
        evidence=one.evidence,
        trainable_parameters=one.trainable_parameters,
        cost=time.total_s.times(price * job.placement.gpus / 3600) if time is not None and price else None,
        fastest_card=fastest,
        slowest_card=slowest,
    )
