"""Which engine spreads a job over several cards, where the question leaves it open.

Each method is searched under every engine that can run it; a copy on each card comes first among plans that are equally
fast, because it is the simplest to run. Loaded only where several cards share a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from advisor.advice.job import WORSE, Job, first_recipe
from advisor.advice.search import BAND, Outcome, best_outcome
from advisor.engines.limits import refusal
from advisor.errors import InputError
from advisor.libraries import libraries_of
from advisor.specs import Method, Placement, Sharding, TracedModel

FIRST: tuple[Sharding, ...] = ("ddp", "fsdp2")
"""FSDP2 has replaced FSDP1, which is asked for by name."""
DEEPSPEED: tuple[Sharding, ...] = ("zero1", "zero2", "zero3")
"""Tried for adapters only where none of FIRST surely fits: DeepSpeed trains them in 16 bits (engines.deepspeed)."""
OPEN = (*FIRST, *DEEPSPEED)
"""What is tried, in the order in which it is preferred."""
ONLY: dict[str, dict[str, Sharding]] = {"litgpt": {"full": "fsdp1"}, "torchtune": {}}
"""Of trainers, by the code of their stack, that have one engine for several cards: by method, where it is not FSDP2.

Source: litgpt 0.5.13, finetune/full.py, setup: FSDPStrategy for more than one device; finetune/lora.py, setup:
ModelParallelStrategy, whose parallelize_fn calls fully_shard; torchtune 0.6.1, recipes/full_finetune_distributed.py and
lora_finetune_distributed.py: training.shard_model, by fully_shard.
"""


def is_open(job: Job) -> bool:
    """Whether the engine is to be found: not with one that was asked for, by its name or for what it offloads."""
    asked = job.question.sharding is not None or job.placement.sharding != "none"
    return not asked and job.placement.offload == "none" and not isinstance(job.model, TracedModel)


def open_to(job: Job, method: Method) -> tuple[Sharding, ...]:
    """The engines that the trainer of a job can use."""
    only = ONLY.get(libraries_of(first_recipe(job, method).stack).code)
    return OPEN if only is None else (only.get(method, "fsdp2"),)


def with_only_engine(job: Job) -> Job:
    """The job under the one engine that its trainer has for its methods, where the question names none."""
    engines = {engine for method in job.methods for engine in open_to(job, method)}
    if len(engines) > 1 or job.question.sharding is not None or job.placement.sharding != "none":
        return job
    return job._replace(placement=job.placement.model_copy(update={"sharding": engines.pop()}))


def runnable(job: Job, method: Method, like: Placement, engines: Iterable[Sharding]) -> Iterator[Placement]:
    """The placement under each of the engines that can run the method."""
    recipe = first_recipe(job, method)
    for sharding in engines:
        one = like.model_copy(update={"sharding": sharding})
        if not refusal(job.model, recipe, one):
            yield one


def outcomes(job: Job, method: Method) -> list[Outcome]:
    """The best plan of a method under the question's own placement, or under each engine that can run it.

    Raises InputError where none can.
    """
    refused: list[InputError] = []
    if not is_open(job):
        found = _tried(job, method, [job.placement], refused)
    else:
        engines = open_to(job, method)
        first, later = [one for one in engines if one not in DEEPSPEED], [one for one in engines if one in DEEPSPEED]
        found = _tried(job, method, runnable(job, method, job.placement, first), refused)
        if method == "full" or all(one.verdict != "fits" for one in found):
            found += _tried(job, method, runnable(job, method, job.placement, later), refused)
    if refused and not found:
        raise refused[-1]
    return found


def _tried(job: Job, method: Method, placements: Iterable[Placement], refused: list[InputError]) -> list[Outcome]:
    """The best plan under each placement; what cannot be run is added to `refused`."""
    found = []
    for placement in placements:
        try:
            found.append(best_outcome(job._replace(placement=placement), method))
        except InputError as error:
            refused.append(error)
    return found


def best_placed(job: Job, method: Method) -> Outcome:
    """The best of `outcomes`: what fits, then what is fastest; where memory is what matters, what needs the least."""
    found = outcomes(job, method)
    best = min(WORSE.index(one.verdict) for one in found)
    found = [one for one in found if WORSE.index(one.verdict) == best]
    if job.smallest or best or any(one.estimate.time is None for one in found):
        return min(found, key=lambda one: one.estimate.memory.needed_bytes.high)
    within = BAND * min(_seconds(one) for one in found)
    return next(one for one in found if _seconds(one) <= within)


def _seconds(one: Outcome) -> float:
    assert one.estimate.time is not None
    return one.estimate.time.total_s.likely
