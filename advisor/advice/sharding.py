"""Which engine spreads a job over several cards, where the question leaves it open.

Each method is searched under every engine that can run it; a copy on each card comes first among plans that are equally
fast, because it is the simplest to run. Loaded only where several cards share a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from advisor.advice.job import Job, first_recipe
from advisor.advice.search import BAND, Outcome, best_outcome
from advisor.engines.limits import refusal
from advisor.errors import InputError
from advisor.specs import Method, Placement, Sharding, TracedModel

FIRST: tuple[Sharding, ...] = ("ddp", "fsdp2")
DEEPSPEED: tuple[Sharding, ...] = ("zero1", "zero2", "zero3")
"""Tried for adapters only where none of FIRST surely fits: DeepSpeed trains them in 16 bits (engines.zero)."""
OPEN = (*FIRST, *DEEPSPEED)
"""What is tried, in the order in which it is preferred."""
_ORDER = ("fits", "tight", "does_not_fit")


def is_open(job: Job) -> bool:
    """Whether the engine is to be found: not with one that was asked for, by its name or for what it offloads."""
    return job.question.sharding is None and job.placement.offload == "none" and not isinstance(job.model, TracedModel)


def runnable(job: Job, method: Method, like: Placement, engines: Iterable[Sharding]) -> Iterator[Placement]:
    """The placement under each of the engines that can run the method."""
    recipe = first_recipe(job, method)
    for sharding in engines:
        one = like.model_copy(update={"sharding": sharding})
        if not refusal(job.model, recipe, one):
            yield one


def outcomes(job: Job, method: Method) -> list[Outcome]:
    """The best plan of a method under the question's own placement, or under each engine that can run it."""
    if not is_open(job):
        return _tried(job, method, [job.placement])
    found = _tried(job, method, runnable(job, method, job.placement, FIRST))
    if method == "full" or all(one.verdict != "fits" for one in found):
        found += _tried(job, method, runnable(job, method, job.placement, DEEPSPEED))
    return found


def _tried(job: Job, method: Method, placements: Iterable[Placement]) -> list[Outcome]:
    found = []
    for placement in placements:
        try:
            found.append(best_outcome(job._replace(placement=placement), method))
        except InputError:
            if job.question.sharding is not None:
                raise
    return found


def best_placed(job: Job, method: Method) -> Outcome:
    """The best of `outcomes`: what fits, then what is fastest; where memory is what matters, what needs the least."""
    found = outcomes(job, method)
    best = min(_ORDER.index(one.verdict) for one in found)
    found = [one for one in found if _ORDER.index(one.verdict) == best]
    if job.smallest or best or any(one.estimate.time is None for one in found):
        return min(found, key=lambda one: one.estimate.memory.needed_bytes.high)
    within = BAND * min(_seconds(one) for one in found)
    return next(one for one in found if _seconds(one) <= within)


def _seconds(one: Outcome) -> float:
    assert one.estimate.time is not None
    return one.estimate.time.total_s.likely
