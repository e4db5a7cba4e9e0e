"""`--simulate`: the recommended plan's own job through the allocator, and what would make the allocator hold less.

Only this module decides what is replayed; `costs.simulation` replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from advisor.advice.job import WORSE, Job, fit_of, host_fit
from advisor.answer import Candidate, Change, Reason, Simulation
from advisor.costs.card_memory import communication_of, replayed_memory, within_card
from advisor.costs.device import profile_for
from advisor.costs.machine_code import COMPILED
from advisor.costs.peaks import ALLOCATED_SPREAD
from advisor.costs.simulation import (
    ORDERS,
    Simulator,
    chance_beyond,
    default_steps,
    order_of,
    short_steps,
    simulated,
    tried_steps,
)
from advisor.costs.steptime import step_count, steps_between_evaluations
from advisor.errors import BadValue, InputError
from advisor.interval import Interval
from advisor.recipes import flag, flags_of
from advisor.rules.savings import ROUND_TO
from advisor.rules.wording import FORMULA, signed_gib
from advisor.specs import ModelSpec, Recipe, Workload
from advisor.stacks import stack_for
from advisor.units import format_gib

if TYPE_CHECKING:
    from advisor.dataset.rows import Progress

CODE = "simulate"
MOST_STEPS = 100_000
REMEDIED_PART = 4
"""Of the steps, over which remedies are compared."""
_EXPECTED_REPLAYS = 8
"""Replays of the start of an order until its smallest capacity is found, for the progress bar."""
RISK = 0.05
"""A chance to run out of memory from which on the answer warns."""


class Simulating(NamedTuple):
    """What --simulate asks for; 0 steps leave their number open."""

    steps: int = 0
    seed: int = 0


def check(asked: Simulating, model: object) -> None:
    """Raise BadValue for steps or a seed out of range and for a model that was only traced, InputError without numba.

    Without numba a replay takes minutes.
    """
    for name, value, least, most in (
        ("--simulate-steps", asked.steps, 0, MOST_STEPS),
        ("--seed", asked.seed, 0, 2**32),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise BadValue(name, value, f"must be a whole number from {least} to {most:,}")
    if not isinstance(model, ModelSpec):
        name = getattr(model, "name", "")
        raise BadValue(
            "--simulate", name, "this model was only traced, and a trace has no order of steps; leave it out"
        )
    if not COMPILED:
        raise InputError("--simulate needs numba: pip install 'finetune-advisor[simulate]'")


class Replayed(NamedTuple):
    """The recommended row with its memory from the replay, the replay, and what the answer says about it."""

    row: Candidate
    simulation: Simulation
    note: Reason
    warning: Reason | None


def replayed(job: Job, row: Candidate, asked: Simulating, progress: Progress | None) -> Replayed:
    """Replay the job of the recommended row on the smallest card."""
    assert isinstance(job.model, ModelSpec)
    card = job.smallest_card
    profile = job.profile or profile_for(card)
    recipe, workload = row.recipe, job.workload
    steps = min(asked.steps or default_steps(job.model, recipe), step_count(workload, recipe, job.placement))
    aside = [profile.workspace_bytes] if profile.workspace_bytes else []
    every = steps_between_evaluations(workload, recipe, job.placement) if recipe.eval_batch else 0
    on_step = None if progress is None else _counted(steps, recipe, progress)
    stack, capability = stack_for(recipe, card, workload), card.compute_capability
    found = simulated(
        job.model, recipe, workload, steps, asked.seed, aside, ALLOCATED_SPREAD, capability, on_step, every, stack
    )
    context = profile.context_bytes.plus(communication_of(card, job.placement))
    beginnings = [one.needed_bytes for one in row.memory.moments if one.name in ("loading", "preparation")]
    needed, each = row.memory.needed_bytes, [row.memory.needed_bytes]
    if found.needed is not None:
        needed = _largest(found.needed.plus(context), *beginnings)
        each = [_largest(one.plus(Interval.exact(context.likely)), *beginnings) for one in found.each]
    memory = within_card(replayed_memory(row.memory, found.reserved, needed, context), card.memory_bytes, context)
    evidence = row.evidence.model_copy(update={"memory": f"{row.evidence.memory}; {_replay_text(found.steps)}"})
    chance = chance_beyond(each, card.memory_bytes)
    fits = fit_of(memory.needed_bytes, card.memory_bytes), host_fit(memory, row.placement)
    verdict = max(fits, key=WORSE.index)
    simulation = Simulation(
        steps=found.steps,
        seed=asked.seed,
        orders=found.orders,
        reserved_bytes=found.reserved,
        needed_bytes=memory.needed_bytes,
        out_of_memory_chance=round(chance, 3),
        remedies=tuple(_remedies(job, recipe, steps, asked.seed, aside, every)) if found.orders > 1 else (),
    )
    return Replayed(
        row.model_copy(update={"memory": memory, "evidence": evidence, "verdict": verdict}),
        simulation,
        _note(simulation, card.memory_bytes),
        _warning(simulation, card.memory_bytes),
    )


def _largest(*sizes: Interval) -> Interval:
    """The largest low, likely and high value: the replay begins with the model as it is after loading."""
    return Interval(*(max(values) for values in zip(*sizes, strict=True)))


def _counted(steps: int, recipe: Recipe, progress: Progress) -> Callable[[], None]:
    """What tells `progress` after each replayed step how many of how many there will be, about."""
    tried = min(steps, tried_steps(recipe)) + _EXPECTED_REPLAYS * min(steps, short_steps(recipe))
    expected, done = ORDERS * (steps + (0 if recipe.expandable_segments else tried)), 0

    def on_step() -> None:
        nonlocal done
        done += 1
        progress(min(done, expected), expected)

    return on_step


def _replay_text(steps: int) -> str:
    return f"what the allocator holds from a replay of {steps:,} steps of this job"


def _note(found: Simulation, memory_bytes: int) -> Reason:
    """That the memory stands on a replay, and what it says."""
    orders = f"in {found.orders} orders, seed {found.seed}" if found.orders > 1 else "of one length"
    text = (
        f"Memory stands on a replay of this job ({found.steps:,} steps {orders}): "
        f"{format_gib(found.needed_bytes.likely)} GiB must fit; where there is room, PyTorch reserves "
        f"{format_gib(found.reserved_bytes.likely)} GiB"
    )
    if found.reserved_bytes.likely > memory_bytes:
        text += ", so that here it empties its cache now and then"
    text += f"; chance to run out of memory {found.out_of_memory_chance:.0%}."
    return Reason(code=CODE, text=text, source=FORMULA)


def _warning(found: Simulation, memory_bytes: int) -> Reason | None:
    """That the job may run out of memory on the card."""
    if found.out_of_memory_chance < RISK:
        return None
    text = (
        f"Replayed, this job runs out of memory with a chance of {found.out_of_memory_chance:.0%}: it needs "
        f"{format_gib(found.needed_bytes.low)} to {format_gib(found.needed_bytes.high)} of "
        f"{format_gib(memory_bytes)} GiB."
    )
    return Reason(code=CODE, text=text, source=FORMULA)


class _Remedy(NamedTuple):
    """Another way to run the same job."""

    workload: Workload
    recipe: Recipe
    knob: str = ""
    value: object = None
    longest_first: bool = False


def _ways(workload: Workload, recipe: Recipe) -> Iterator[_Remedy]:
    if not workload.group_by_length:
        grouped = workload.model_copy(update={"group_by_length": True})
        yield _Remedy(grouped, recipe, "group_by_length", True)
    if not workload.images and workload.pad_to_multiple_of < ROUND_TO <= workload.seq_len:
        rounded = workload.model_copy(update={"pad_to_multiple_of": ROUND_TO})
        yield _Remedy(rounded, recipe, "pad_to_multiple_of", ROUND_TO)
    yield _Remedy(workload, recipe, longest_first=True)
    if not recipe.expandable_segments:
        expandable = recipe.model_copy(update={"expandable_segments": True})
        yield _Remedy(workload, expandable, "expandable_segments", True)


def _remedies(
    job: Job, recipe: Recipe, steps: int, seed: int, aside: list[int], evaluate_every: int
) -> Iterator[Change]:
    """Each way's reserved and needed bytes less those of the plan, over the same part of one order."""
    assert isinstance(job.model, ModelSpec)
    part = -(-steps // REMEDIED_PART)
    plain: tuple[float, float] | None = None
    for way in (_Remedy(job.workload, recipe), *_ways(job.workload, recipe)):
        held = _held(job._replace(workload=way.workload), way, part, seed, aside, evaluate_every)
        if plain is None:
            plain = held
            continue
        reserved, needed = (mine - theirs for mine, theirs in zip(held, plain, strict=True))
        changed = flag(way.knob, way.value) if way.knob else ""
        pinned = (one for one in flags_of(way.recipe, job.question.fixed) if one != changed)
        name = changed or "A longest row in the first micro-batch"
        yield Change(
            code=CODE,
            text=f"{name}: reserves {signed_gib(reserved)}, needs {signed_gib(needed)}",
            source=FORMULA,
            flags=(changed, *pinned) if changed else (),
            knobs=(way.knob,) if way.knob else (),
            workload=way.workload,
            memory_bytes=needed,
        )


def _held(job: Job, way: _Remedy, steps: int, seed: int, aside: list[int], evaluate_every: int) -> tuple[float, float]:
    """Bytes that are reserved and that must fit, without the CUDA context."""
    assert isinstance(job.model, ModelSpec)
    lengths = (steps, min(steps, short_steps(way.recipe)))
    whole, short = (
        order_of(way.workload, way.recipe, length, seed, way.longest_first, evaluate_every) for length in lengths
    )
    card = job.smallest_card
    stack, capability = stack_for(way.recipe, card, job.workload), card.compute_capability
    simulator = Simulator(job.model, way.recipe, [whole, short], aside, stack, capability)
    if way.recipe.expandable_segments:
        aside_bytes = (
            (job.profile or profile_for(card)).context_bytes.plus(communication_of(card, job.placement)).likely
        )
        return simulator.reserved_bytes(whole), job.estimate(way.recipe).memory.needed_bytes.likely - aside_bytes
    return simulator.reserved_bytes(whole), simulator.needed_bytes(short)
