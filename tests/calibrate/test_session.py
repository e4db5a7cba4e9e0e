from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import SourceUnavailable
from calibrate import session
from calibrate.cut import Whole
from calibrate.measurement import Comparison
from calibrate.plan import Plan, PlannedBurst, Request, make_plan
from calibrate.runner import BurstJob, Result
from calibrate.session import Options, Summary, note_of, work
from calibrate.store import Store
from tests.calibrate import made_up
from tests.calibrate.made_up import TINY, machine
from tests.decoders.tiny import spec

HERE = machine()
PLAN = make_plan(Request((Whole("tiny", TINY, spec("llama")),), rows=((1, 16),)), HERE)
DONE = Result("done", made_up.figures(), made_up.run(), "")


class Clock:
    """Moves only when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Runner:
    """Answers at once; `takes_s` moves the clock, `results` replaces the outcome of the n-th burst."""

    def __init__(self, clock: Clock | None = None, takes_s: float = 0.0, results: Mapping[int, Any] = {}) -> None:
        self.jobs: list[BurstJob] = []
        self._clock, self._takes_s, self._results = clock or Clock(), takes_s, results

    def run(self, job: BurstJob, hear: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Result:
        self.jobs.append(job)
        self._clock.now_s += self._takes_s
        result = self._results.get(len(self.jobs), DONE)
        if isinstance(result, BaseException):
            raise result
        assert isinstance(result, Result)
        return result


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, str, bool]] = []

    def begin(self, number: int, total: int, burst: PlannedBurst) -> None:
        self.begun = number

    def hear(self, news: Mapping[str, Any]) -> None:
        pass

    def end(self, number: int, total: int, burst: PlannedBurst, record: Comparison, kept: bool) -> None:
        assert record.burst is not None
        self.ended.append((number, record.burst.outcome, kept))


def go(store: Store, runner: Runner, plan: Plan = PLAN, clock: Clock | None = None, **options: Any) -> Summary:
    wanted = Options(**{"budget_s": 1000.0} | options)
    return work(plan, HERE, store, runner, wanted, Listener(), clock or Clock())


def test_every_burst_is_noted_before_and_after(tmp_path: Path) -> None:
    store, runner = Store(tmp_path), Runner()
    summary = go(store, runner)
    assert len(summary.records) == len(runner.jobs) == len(PLAN.bursts) == 10
    outcomes = [one.burst.outcome for one in store.read().records if one.burst is not None]
    assert outcomes == ["started", "done"] * 10
    started, done = store.read().records[:2]
    assert started.predicted == done.predicted
    assert started.measured is None
    assert done.measured == DONE.figures
    assert done.burst is not None
    assert started.burst is not None
    assert (done.burst.id, done.burst.run) == (started.burst.id, DONE.run)
    assert summary.not_reached == 0


def test_the_prediction_is_on_the_disk_before_the_burst_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen: list[Comparison] = []

    class Looking(Runner):
        def run(self, job: BurstJob, hear: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Result:
            seen.append(store.read().records[-1])
            return super().run(job, hear)

    go(store, Looking())
    assert all(one.burst is not None and one.burst.outcome == "started" and one.predicted for one in seen)
    assert len(seen) == 10


def test_a_later_run_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    broken = Runner(results={4: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        go(store, broken)
    assert len(store.read().results) == 3
    second, listener = Runner(), Listener()
    summary = work(PLAN, HERE, store, second, Options(1000.0), listener, Clock())
    assert len(second.jobs) == 7
    assert [kept for _, _, kept in listener.ended] == [True] * 3 + [False] * 7
    assert len(summary.records) == 10
    assert not go(store, third := Runner()).not_reached
    assert third.jobs == []
    assert len(go(store, fourth := Runner(), again=True).records) == len(fourth.jobs) == 10


def test_other_versions_are_measured_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    go(store, Runner())
    other = HERE._replace(environment=HERE.environment.model_copy(update={"torch": "2.14.0"}))
    runner = Runner()
    work(PLAN, other, store, runner, Options(1000.0), Listener(), Clock())
    assert len(runner.jobs) == 10


def test_a_crash_is_a_result_and_is_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bad = {2: Result("crashed", None, None, "signal 9"), 3: Result("out_of_memory", None, None, "no memory")}
    first = go(store, Runner(results=bad))
    outcomes = [one.burst.outcome for one in first.records if one.burst is not None]
    assert outcomes == ["done", "crashed", "out_of_memory"] + ["done"] * 7
    go(store, second := Runner())
    assert [job.recipe.method for job in second.jobs] == [PLAN.bursts[1].recipe.method]


def test_the_budget_ends_it(tmp_path: Path) -> None:
    clock = Clock()
    runner = Runner(clock, takes_s=10.0)
    summary = go(Store(tmp_path), runner, clock=clock, budget_s=55.0)
    assert 3 <= len(runner.jobs) <= 5
    assert summary.not_reached == 10 - len(runner.jobs)
    assert clock.now_s <= 55.0


def test_time_spent_before_counts(tmp_path: Path) -> None:
    clock = Clock()
    runner = Runner(clock, takes_s=10.0)
    go(Store(tmp_path), runner, clock=clock, budget_s=55.0, spent_s=40.0)
    assert len(runner.jobs) == 1


def test_the_first_burst_runs_however_small_the_budget(tmp_path: Path) -> None:
    clock = Clock()
    assert len(go(Store(tmp_path), Runner(clock, takes_s=10.0), clock=clock, budget_s=1.0).records) == 1


def test_a_burst_may_take_what_is_left_of_the_budget(tmp_path: Path) -> None:
    clock = Clock()
    go(Store(tmp_path), runner := Runner(clock, takes_s=10.0), clock=clock, budget_s=55.0, spent_s=5.0, steps=100_000)
    assert [job.left_s for job in runner.jobs[:3]] == [50.0, 40.0, 30.0]
    go(Store(tmp_path / "other"), runner := Runner(), budget_s=1.0, spent_s=5.0)
    assert [job.left_s for job in runner.jobs] == [1.0]


def test_a_burst_with_fewer_steps_than_asked_for_is_told(tmp_path: Path) -> None:
    assert go(Store(tmp_path), Runner(), steps=9).cut_short == 0
    assert go(Store(tmp_path / "other"), Runner(), steps=10).cut_short == 10


def test_a_burst_with_too_few_steps_for_a_fit_is_measured_again(tmp_path: Path) -> None:
    few = Result("done", made_up.figures(), made_up.run(step_s=(0.1, 0.1)), "")
    go(Store(tmp_path), Runner(results={3: few, 5: few}))
    go(Store(tmp_path), second := Runner(), steps=2)
    assert second.jobs == []
    go(Store(tmp_path), third := Runner())
    assert [job.recipe.method for job in third.jobs] == [PLAN.bursts[n - 1].recipe.method for n in (3, 5)]


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_two_sessions_at_once_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    monkeypatch.setattr(session, "POLL_S", 0.01)
    go(Store(tmp_path), Runner())
    runners = [Slow(), Slow()]
    folder = tmp_path if again else tmp_path / "new"
    begin = threading.Barrier(2)

    def one(runner: Runner) -> Summary:
        begin.wait()
        return go(Store(folder), runner, again=again)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one, runners)
    assert all(runner.jobs for runner in runners)
    assert sum(len(runner.jobs) for runner in runners) == 10
    assert first.records == second.records
    assert len(first.records) == 10
    assert len(Store(folder).read().results) == (20 if again else 10)
    assert list((folder / "claims").iterdir()) == []


class Slow(Runner):
    """Takes long enough for another to come in between."""

    def run(self, job: BurstJob, hear: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Result:
        time.sleep(0.02)
        return super().run(job, hear)


@pytest.mark.slow
def test_a_burst_that_crashed_elsewhere_is_tried_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other session holds it at first."""
    monkeypatch.setattr(session, "POLL_S", 0.01)
    store = Store(tmp_path)
    key = key_at(3)
    with ThreadPoolExecutor(1) as pool:
        with Store(tmp_path).claimed(key) as ours:
            assert ours
            running = pool.submit(go, store, runner := Runner())
            while len(runner.jobs) < 9:
                time.sleep(0.01)
            time.sleep(0.05)
            assert len(runner.jobs) == 9
        assert len(running.result(10).records) == 10
    assert runner.jobs[-1].recipe == PLAN.bursts[3].recipe


def test_a_burst_held_elsewhere_is_not_waited_for_beyond_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def sleep(wait_s: float) -> None:
        clock.now_s += wait_s

    monkeypatch.setattr(session.time, "sleep", sleep)
    with Store(tmp_path).claimed(key_at(3)):
        summary = go(Store(tmp_path), Runner(), clock=clock, budget_s=20.0)
    assert (len(summary.records), summary.not_reached) == (9, 1)
    assert clock.now_s <= 20.5


def key_at(index: int) -> str:
    burst = note_of(PLAN.bursts[index], HERE).burst
    assert burst is not None
    return burst.key


def test_steps_and_their_time_are_handed_on(tmp_path: Path) -> None:
    go(Store(tmp_path), runner := Runner(), steps=7, budget_s=100.0)
    assert {job.steps for job in runner.jobs} == {7}
    assert {job.limit_s for job in runner.jobs} == {100 / 10 * (1 / 3)}


def test_a_disk_that_is_full_stops_it_with_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    append, count = store.append, 0

    def full(*records: Comparison) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise SourceUnavailable("No space left on device")
        append(*records)

    monkeypatch.setattr(store, "append", full)
    with pytest.raises(SourceUnavailable, match="No space"):
        go(store, Runner())
    assert len(store.read().results) == 2


def test_what_is_drawn_is_recorded_with_its_prediction_before_it_runs() -> None:
    knobs = {"mean_seq_len": "8", "micro_batch": "2", "eval_batch": "3", "gradient_checkpointing": True}
    asked = Request((Whole("tiny", TINY, spec("llama")),), ("lora",), knobs, rows=((2, 16),), steps=3)
    (burst,) = make_plan(asked, HERE).bursts
    note = note_of(burst, HERE)
    assert note.burst is not None
    assert [step.lengths for step in note.burst.drawn] == [(step[0].lengths,) for step in burst.draws[1:]]
    assert max(step.predicted_bytes or 0 for step in note.burst.drawn) <= note.predicted.peak_allocated_bytes  # type: ignore[union-attr]
    assert (note.rows, note.kind, note.burst.workload) == ("padded", "varying", burst.workload)
    full = note_of(make_plan(asked._replace(knobs=knobs | {"mean_seq_len": None}), HERE).bursts[0], HERE)
    assert full.burst is not None
    assert full.burst.key != note.burst.key
    job = session._job(burst, 3, 1.0, 1.0)
    assert (job.batch, job.evaluated, job.draws) == (burst.batch, burst.evaluated, burst.draws)
    assert Comparison.model_validate_json(note.model_dump_json()) == note
