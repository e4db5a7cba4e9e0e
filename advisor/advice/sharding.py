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
from advisor.libraries import libraries_of
from advisor.specs import Method, Placement, Sharding, TracedModel

OPEN: tuple[Sharding, ...] = ("ddp", "fsdp2")
"""What is tried, in the order in which it is preferred. FSDP2 has replaced FSDP1, which is asked for by name."""
ONLY: dict[str, tuple[Sharding, ...]] = {"litgpt": ("fsdp1",)}
"""Of trainers, by the code of their stack, that have one engine for several cards.

Source: litgpt 0.5, finetune/full.py and lora.py, setup: FSDPStrategy for more than one device.
"""
_ORDER = ("fits", "tight", "does_not_fit")


def placements(job: Job, method: Method) -> Iterator[Placement]:
    """The placements that a method is searched under: the question's own, or one for each engine that can run it."""
    asked = job.placement
    offloaded = asked.offload != "none"
    if asked.sharding != "none" or job.question.sharding or offloaded or isinstance(job.model, TracedModel):
        yield asked
        return
    yield from runnable(job, method, asked, OPEN)


def open_to(job: Job, method: Method) -> tuple[Sharding, ...]:
    """The engines that the trainer of a job can use."""
    return ONLY.get(libraries_of(first_recipe(job, method).stack).code, OPEN)


def with_only_engine(job: Job) -> Job:
    """The job under the one engine that its trainer has, where it has one and the question names none."""
    engines = open_to(job, job.methods[0])
    if len(engines) > 1 or job.question.sharding is not None or job.placement.sharding != "none":
        return job
    return job._replace(placement=job.placement.model_copy(update={"sharding": engines[0]}))


def runnable(job: Job, method: Method, like: Placement, engines: Iterable[Sharding]) -> Iterator[Placement]:
    """The placement under each of the engines that can run the method."""
    recipe = first_recipe(job, method)
    for sharding in engines:
        one = like.model_copy(update={"sharding": sharding})
        if not refusal(job.model, recipe, one):
            yield one


def outcomes(job: Job, method: Method) -> list[Outcome]:
    """The best plan of a method under each placement."""
    found = []
    for placement in placements(job, method):
        try:
            found.append(best_outcome(job._replace(placement=placement), method))
        except InputError:
            if job.placement.sharding != "none":
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
