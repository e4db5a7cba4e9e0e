"""An answer of which the verdict is known, and the rest of it: what would fit, other plans, what changes bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from advisor.advice.candidates import Row
from advisor.advice.job import Job
from advisor.advice.posing import Asked
from advisor.advice.prices import frontier, prices
from advisor.answer import Advice, Candidate, Change, Spread
from advisor.rules.context import Context
from advisor.specs import GpuSpec

if TYPE_CHECKING:
    from advisor.advice.catalogs import Catalog


class Begun(NamedTuple):
    """The answer without that rest, and what it is worked out from."""

    advice: Advice
    job: Job
    asked: Asked
    chosen: Row | None
    context: Context
    stand_ins: tuple[GpuSpec, ...]
    catalog: Catalog


def completed(begun: Begun) -> Advice:
    """The whole answer."""
    job, chosen = begun.job, begun.chosen
    if chosen is None:
        would_fit = _remedies(job, begun.asked, begun.context, begun.catalog)
        return begun.advice.model_copy(update={"alternatives": (*begun.advice.alternatives, *would_fit)})
    engines, scaling = _spread(job, chosen, begun.stand_ins)
    rest = {
        "alternatives": _surer(job, begun.asked, chosen.candidate, begun.catalog),
        "engines": engines,
        "scaling": scaling,
        "frontier": frontier(job, chosen, begun.stand_ins),
        "prices": prices(job, chosen.candidate, begun.stand_ins),
    }
    return begun.advice.model_copy(update=rest)


def _spread(job: Job, chosen: Row, stand_ins: tuple[GpuSpec, ...]) -> tuple[tuple[Spread, ...], ...]:
    """The recommended method under other engines and on other numbers of cards; loaded only where there are several."""
    if job.placement.gpus == 1:
        return (), ()
    from advisor.advice.several import by_engine, on_other_counts

    return by_engine(job, chosen.candidate, stand_ins), on_other_counts(job, chosen.candidate, stand_ins)


def _remedies(job: Job, asked: Asked, context: Context, catalog: Catalog) -> tuple[Change, ...]:
    """What would fit; the search for it is loaded only when nothing does."""
    from advisor.advice.remedies import remedies

    return remedies(job, asked, context.candidates, catalog)


def _surer(job: Job, asked: Asked, row: Candidate, catalog: Catalog) -> tuple[Change, ...]:
    """What surely fits, where the recommended row only just does; loaded only then."""
    if row.verdict != "tight" or row.memory.needed_bytes.high <= job.smallest_card.memory_bytes:
        return ()
    from advisor.advice.remedies import surer

    return surer(asked, job, row, catalog)
