"""Works through a plan: records each prediction, runs the burst, saves the result, watches the time. Needs no torch."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from advisor.specs import Recipe
from calibrate.burst_record import BurstFacts, key_of
from calibrate.measurement import Comparison, Environment
from calibrate.plan import Plan, PlannedBurst
from calibrate.predict import Prediction
from calibrate.runner import BurstJob, Machine, Result
from calibrate.store import Store

TIMING_SHARE = 1 / 3
TIMING_S = (1.5, 10.0)
"""Least and most seconds for which the steps of one burst are timed when their number is not fixed."""
RESERVE = 1.2
"""A burst starts only if it should end within the remaining budget; the first one always starts."""
WORTH_KEEPING = ("done", "out_of_memory")
"""Outcomes that a later run does not repeat; a crash is repeated, as it may have been an accident."""


class Options(NamedTuple):
    """How to work through a plan; `spent_s` seconds of the budget are already used."""

    budget_s: float
    spent_s: float = 0.0
    steps: int = 0
    again: bool = False


class Runner(Protocol):
    """What runs one burst."""

    def run(self, job: BurstJob, hear: Callable[[Mapping[str, Any]], None] = ...) -> Result:
        """Its outcome."""


class Audience(Protocol):
    """The receiver of a session's events."""

    def begin(self, number: int, total: int, burst: PlannedBurst) -> None:
        """A burst is about to run."""

    def hear(self, news: Mapping[str, Any]) -> None:
        """One of its steps is done."""

    def end(self, number: int, total: int, burst: PlannedBurst, record: Comparison, kept: bool) -> None:
        """It has been measured; `kept` if by an earlier run."""


class Summary(NamedTuple):
    """The outcome of a session: results in the order of the plan, and how many bursts there was no time for."""

    records: tuple[Comparison, ...]
    not_reached: int


def work(
    plan: Plan,
    machine: Machine,
    store: Store,
    runner: Runner,
    options: Options,
    audience: Audience,
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Measure the bursts of a plan that are not in the store yet, as many as the budget allows.

    Each result is on the disk before the next burst begins, so an exception or a kill at any moment loses only the
    burst that was running. Raises SourceUnavailable when the store or the libraries are missing.
    """
    known = {} if options.again else _known(store)
    end_s = clock() + options.budget_s - options.spent_s
    timing_s = min(max(options.budget_s / len(plan.bursts) * TIMING_SHARE, TIMING_S[0]), TIMING_S[1])
    found: list[Comparison] = []
    planned_s = spent_s = 0.0
    not_reached, total = 0, len(plan.bursts)
    for number, burst in enumerate(plan.bursts, 1):
        started = note_of(burst, machine)
        assert started.burst is not None
        if started.burst.key in known:
            found.append(known[started.burst.key])
            audience.end(number, total, burst, found[-1], kept=True)
            continue
        left_s = end_s - clock()
        pace = spent_s / planned_s if planned_s else 1.0
        if planned_s and burst.cost_s * pace * RESERVE > left_s:
            not_reached += 1
            continue
        audience.begin(number, total, burst)
        store.append(started)
        begin_s = clock()
        job = BurstJob(burst.model.config, burst.recipe, burst.seq_len, options.steps, timing_s, burst.model.code)
        result = runner.run(job, audience.hear)
        spent_s, planned_s = spent_s + clock() - begin_s, planned_s + burst.cost_s
        found.append(finished(started, result))
        store.append(found[-1])
        audience.end(number, total, burst, found[-1], kept=False)
    return Summary(tuple(found), not_reached)


def note_of(burst: PlannedBurst, machine: Machine) -> Comparison:
    """The record of a burst before it runs: everything except the measurement."""
    environment, device = machine.environment, machine.device
    recipe, prediction = burst.recipe, burst.prediction
    return Comparison(
        model=burst.model.name,
        method=recipe.method,
        recipe=recipe,
        batch=recipe.micro_batch,
        seq_len=burst.seq_len,
        source=device.kind,
        predicted=prediction.figures,
        measured=None,
        environment=environment,
        burst=burst_facts(
            environment,
            dict(burst.model.config),
            recipe,
            burst.seq_len,
            prediction,
            machine.available_bytes,
            started_at=now_text(),
            outcome="started",
            cut=burst.model.text,
        ),
    )


def burst_facts(
    environment: Environment,
    config: dict[str, Any],
    recipe: Recipe,
    seq_len: int,
    prediction: Prediction,
    limit_bytes: int,
    **more: Any,
) -> BurstFacts:
    """What a record says of a burst on the environment's device; `more` are further fields of BurstFacts."""
    assert environment.device is not None
    key = key_of(
        environment.device.signature,
        environment.versions,
        config,
        recipe.model_dump(mode="json"),
        recipe.micro_batch,
        seq_len,
    )
    return BurstFacts(
        id=uuid.uuid4().hex,
        key=key,
        config=config,
        verdict=prediction.verdict,
        limit_bytes=limit_bytes,
        needed_bytes=0 if prediction.needed is None else round(prediction.needed.likely),
        **more,
    )


def finished(started: Comparison, result: Result) -> Comparison:
    """The record after the burst."""
    assert started.burst is not None
    burst = started.burst.model_copy(update={"outcome": result.outcome, "error": result.error, "run": result.run})
    return started.model_copy(update={"measured": result.figures, "burst": burst})


def now_text() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _known(store: Store) -> dict[str, Comparison]:
    """Results by key, the newest of each, of bursts that need no repetition."""
    return {one.burst.key: one for one in store.read().results if one.burst and one.burst.outcome in WORTH_KEEPING}
