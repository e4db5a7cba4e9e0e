"""Works through a plan: records each prediction, runs the burst, saves the result, watches the time. Needs no torch."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from advisor.specs import Placement, Recipe, Workload
from calibrate.burst_record import BurstFacts, DrawnStep, key_of
from calibrate.checks import FEW_STEPS
from calibrate.measurement import Comparison, Environment
from calibrate.plan import Plan, PlannedBurst
from calibrate.predict import Prediction, step_peaks
from calibrate.record import printable
from calibrate.runner import BurstJob, Machine, Result
from calibrate.store import Store

TIMING_SHARE = 1 / 3
TIMING_S = (1.5, 10.0)
"""Least and most seconds for which the steps of one burst are timed when their number is not fixed."""
LEAST_S = 1.0
"""Least time that a burst gets, as the first one always starts."""
RESERVE = 1.2
"""A burst starts only if it should end within the remaining budget; the first one always starts."""
POLL_S = 0.5
"""How often to look whether another session has finished a burst."""
WORTH_KEEPING = ("done", "out_of_memory")
"""Outcomes that a later run does not repeat; a crash is repeated, as it may have been an accident, and so is a burst
that the budget ended after too few steps for a fit."""


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
    """The outcome of a session: results in the order of the plan, and what there was no time for.

    `not_reached` bursts were not begun; `cut_short` ended before they had all the steps that were asked for.
    """

    records: tuple[Comparison, ...]
    not_reached: int
    cut_short: int = 0


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
    burst that was running. Sessions that use the store at the same time share the work: each burst is measured by one
    of them, and the others take its result. Raises SourceUnavailable when the store or the libraries are missing.
    """
    known = _Known(store, options)
    time_left = _TimeLeft(clock, options)
    timing_s = min(max(options.budget_s / len(plan.bursts) * TIMING_SHARE, TIMING_S[0]), TIMING_S[1])
    found: dict[int, Comparison] = {}
    not_reached, cut_short, total = 0, 0, len(plan.bursts)
    waiting = deque(enumerate(plan.bursts, 1))
    held = 0  # how many of those that wait, one after the other, another session is measuring
    while waiting:
        number, burst = waiting.popleft()
        started = note_of(burst, machine)
        assert started.burst is not None
        with store.claimed(started.burst.key) as ours:
            earlier = known.result(started.burst.key)
            if earlier is not None:
                found[number] = earlier
                audience.end(number, total, burst, earlier, kept=True)
            elif not time_left.allows(burst, first=not held):
                not_reached += 1
            elif ours:
                audience.begin(number, total, burst)
                store.append(started)
                with time_left.spent_on(burst) as left_s:
                    result = runner.run(_job(burst, options.steps, timing_s, left_s), audience.hear)
                found[number] = finished(started, result)
                store.append(found[number])
                cut_short += result.run is not None and len(result.run.step_s) < options.steps
                audience.end(number, total, burst, found[number], kept=False)
            else:
                waiting.append((number, burst))
                held += 1
                if held >= len(waiting):
                    time.sleep(POLL_S)
                continue
        held = 0
    return Summary(tuple(found[number] for number in sorted(found)), not_reached, cut_short)


class _TimeLeft:
    """What is left of the budget, and how long bursts take compared with what was planned for them."""

    def __init__(self, clock: Callable[[], float], options: Options) -> None:
        self._clock = clock
        self._end_s = clock() + options.budget_s - options.spent_s
        self._planned_s = self._spent_s = 0.0

    def allows(self, burst: PlannedBurst, first: bool) -> bool:
        """Whether a burst should end in time; `first`: one that starts in any case when none has run yet."""
        if first and not self._planned_s:
            return True
        pace = self._spent_s / self._planned_s if self._planned_s else 1.0
        return burst.cost_s * pace * RESERVE <= self._end_s - self._clock()

    @contextmanager
    def spent_on(self, burst: PlannedBurst) -> Iterator[float]:
        """Measure how long a burst takes; gives the seconds that it may take."""
        begin_s = self._clock()
        yield max(self._end_s - begin_s, LEAST_S)
        self._spent_s += self._clock() - begin_s
        self._planned_s += burst.cost_s


def _job(burst: PlannedBurst, steps: int, timing_s: float, left_s: float) -> BurstJob:
    model, shape = burst.model, (burst.batch, burst.evaluated, burst.draws, burst.placement)
    return BurstJob(model.config, burst.recipe, burst.seq_len, steps, timing_s, model.code, left_s, *shape)


def note_of(burst: PlannedBurst, machine: Machine) -> Comparison:
    """The record of a burst before it runs: everything except the measurement."""
    environment, device = machine.environment, machine.device
    recipe, prediction = burst.recipe, burst.prediction
    return Comparison(
        model=burst.model.name,
        method=recipe.method,
        recipe=recipe,
        batch=burst.batch.rows,
        seq_len=burst.batch.tokens,
        placement=burst.placement,
        rows=burst.batch.kind,
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
            workload=burst.workload,
            placement=burst.placement,
            drawn=_drawn(burst, machine),
        ),
    )


def _drawn(burst: PlannedBurst, machine: Machine) -> tuple[DrawnStep, ...]:
    """What is drawn and predicted for each step but the first, where rows vary."""
    draws, spec = burst.draws[1:], burst.model.spec
    if not draws:
        return ()
    peaks = [None] * len(draws) if spec is None else step_peaks(spec, burst.recipe, draws, machine.device)
    return tuple(
        DrawnStep(lengths=tuple(drawn.lengths for drawn in step), predicted_bytes=peak)
        for step, peak in zip(draws, peaks, strict=True)
    )


def burst_facts(
    environment: Environment,
    config: dict[str, Any],
    recipe: Recipe,
    seq_len: int,
    prediction: Prediction,
    limit_bytes: int,
    workload: Workload | None = None,
    placement: Placement | None = None,
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
        *(one.model_dump(mode="json") for one in (workload, placement) if one is not None),
    )
    return BurstFacts(
        id=uuid.uuid4().hex,
        key=key,
        config=config,
        verdict=prediction.verdict,
        limit_bytes=limit_bytes,
        workload=workload,
        needed_bytes=0 if prediction.needed is None else round(prediction.needed.likely),
        **more,
    )


def finished(started: Comparison, result: Result) -> Comparison:
    """The record after the burst."""
    assert started.burst is not None
    burst = started.burst.model_copy(
        update={"outcome": result.outcome, "error": printable(result.error), "run": result.run}
    )
    return started.model_copy(update={"measured": result.figures, "burst": burst})


def now_text() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Known:
    """Results that need no repetition, by key, with those that other sessions have added meanwhile."""

    def __init__(self, store: Store, options: Options) -> None:
        """With `options.again`, only what is added from now on."""
        self._store = store
        self._fewest_steps = min(options.steps or FEW_STEPS, FEW_STEPS)
        self._results: dict[str, Comparison] = {}
        self._end = 0
        self._read()
        if options.again:
            self._results.clear()

    def result(self, key: str) -> Comparison | None:
        """The newest result of a burst."""
        self._read()
        return self._results.get(key)

    def _read(self) -> None:
        contents, self._end = self._store.read_from(self._end)
        for one in contents.results:
            burst = one.burst
            if burst is None or burst.outcome not in WORTH_KEEPING:
                continue
            if burst.run is None or len(burst.run.step_s) >= self._fewest_steps:
                self._results[burst.key] = one
