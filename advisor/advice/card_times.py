"""The time of a plan over several cards."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from advisor.advice.job import Job
from advisor.interval import Interval
from advisor.specs import Estimate, GpuSpec, TimeEstimate


class CardTimes(NamedTuple):
    """The time over several cards (the hull of their intervals), with the fastest and the slowest card."""

    time: TimeEstimate
    fastest: str
    slowest: str


def time_over_cards(job: Job, one: Estimate, cards: Sequence[GpuSpec]) -> CardTimes | None:
    """Time of the recipe of `one` over all `cards` of known speed, if any; `one` is its estimate for the smallest card.

    Only cards that could be the fastest or the slowest are estimated: a card dominated in every rate cannot be the
    fastest.
    The likely value is the geometric mean of the two ends' likely values.
    """
    known: list[tuple[str, TimeEstimate]] = []
    for card in end_cards(cards):
        here = card == job.smallest_card
        time = one.time if here else job.time_on(card, one.recipe)
        if time is not None:
            known.append((card.name, time))
    if not known:
        return None
    known.sort(key=lambda item: item[1].total_s.likely)
    (fastest, quick), (slowest, slow) = known[0], known[-1]
    times = [time for _, time in known]
    middle = quick.model_copy(
        update={
            "micro_step_s": _span([time.micro_step_s for time in times]),
            "step_s": _span([time.step_s for time in times]),
            "total_s": _span([time.total_s for time in times]),
            "tokens_per_s": sqrt(quick.tokens_per_s * slow.tokens_per_s),
            "mfu": sqrt(quick.mfu * slow.mfu),
            "energy_j": _span([time.energy_j for time in times if time.energy_j]) if quick.energy_j else None,
            "bound": slow.bound,
        }
    )
    return CardTimes(middle, fastest, slowest)


def _span(intervals: Sequence[Interval]) -> Interval:
    likely = [interval.likely for interval in intervals]
    hull = Interval.hull(intervals)
    return Interval(hull.low, sqrt(min(likely) * max(likely)), hull.high)


def end_cards(cards: Sequence[GpuSpec]) -> tuple[GpuSpec, ...]:
    """The cards that can be the fastest or slowest: no other is at least as good (or as bad) in every rate."""
    known = [card for card in cards if card.speed_known]

    def rates(card: GpuSpec) -> tuple[float, ...]:
        half = card.bf16_flop_per_s or card.fp16_flop_per_s
        return (card.memory_bytes_per_s, half, card.tf32_flop_per_s, card.fp32_flop_per_s)

    distinct = list({rates(card): card for card in known}.items())

    def at_an_end(mine: tuple[float, ...]) -> bool:
        others = [other for other, _ in distinct if other != mine]
        beaten = any(all(o >= m for o, m in zip(other, mine, strict=True)) for other in others)
        beats = any(all(o <= m for o, m in zip(other, mine, strict=True)) for other in others)
        return not (beaten and beats)

    return tuple(card for mine, card in distinct if at_an_end(mine))
