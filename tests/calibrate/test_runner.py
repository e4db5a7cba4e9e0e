"""The parent's side of bursts, with scripts in place of the worker, and once with the worker itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import SourceUnavailable
from advisor.specs import Recipe
from calibrate import runner as module
from calibrate.child import BurstFailed, BurstRefused
from calibrate.runner import BurstJob, BurstRunner, Result
from tests.calibrate import made_up
from tests.calibrate.made_up import CPU, TINY
from tests.calibrate.processes import children_of

pytestmark = pytest.mark.process

HELLO = f"""
import json, os, signal, sys, time
def say(**message):
    print(json.dumps(message), flush=True)
say(environment={made_up.environment(None).model_dump()!r}, forks="--fresh" not in sys.argv)
"""
EACH = "for line in sys.stdin:\n    job = json.loads(line)\n"
MEASURED = f"say(measured={made_up.figures().model_dump()!r}, run={made_up.run().model_dump(mode='json')!r})"
MACHINE = (
    f"say(machine=dict(device={CPU.model_dump()!r}, available_bytes=5, conditions={{}}, "
    "quantization_problem='no', bf16=True, remark='so it is', devices=2))"
)
JOB = BurstJob(TINY, Recipe(method="lora"), 16, 3, 1.0)


def runner(code: str, timeout_s: float = 20.0) -> BurstRunner:
    return BurstRunner((sys.executable, "-c", HELLO + code), timeout_s)


def outcome(code: str, timeout_s: float = 20.0) -> Result:
    with runner(EACH + f"    {code}", timeout_s) as worker:
        return worker.run(JOB)


def test_a_measured_burst_arrives() -> None:
    assert outcome(MEASURED) == Result("done", made_up.figures(), made_up.run(), "")


def test_the_job_is_what_was_planned(tmp_path: Path) -> None:
    with runner(EACH + f"    open({str(tmp_path / 'job')!r}, 'w').write(line); {MEASURED}") as worker:
        worker.run(JOB)
    text = (tmp_path / "job").read_text()
    assert '"seq_len": 16, "steps": 3, "limit_s": 1.0' in text
    assert '"method": "lora"' in text


def test_steps_are_heard_on_the_way() -> None:
    heard: list[Any] = []
    with runner(EACH + f"    say(warm_up_s=1.0); say(step_s=0.5, steps=1); {MEASURED}") as worker:
        assert worker.run(JOB, heard.append).outcome == "done"
    assert heard == [{"warm_up_s": 1.0}, {"step_s": 0.5, "steps": 1}]


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("say(out_of_memory='CUDA out of memory')", "out_of_memory", "CUDA out of memory"),
        ("say(failed='ValueError: no')", "failed", "a library raised ValueError: no"),
        ("say(refused='no flash here')", "failed", "no flash here"),
        (
            "print('a warning', file=sys.stderr, flush=True); say(crashed=-9)",
            "crashed",
            "the burst's process was killed (signal 9), most likely by the out-of-memory killer: free memory",
        ),
        (
            "print('bad kernel', file=sys.stderr, flush=True); say(crashed=-11)",
            "crashed",
            "was killed (signal 11, SIGSEGV): bad kernel",
        ),
        ("say(crashed=-64)", "crashed", "was killed (signal 64, SIGRTMAX): it printed nothing"),
        ("say(crashed=3)", "crashed", "ended with code 3: it printed nothing"),
        ("os._exit(7)", "crashed", "code 7"),
        (
            "print('a warning', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGKILL)",
            "crashed",
            "the worker was killed (signal 9), most likely by the out-of-memory killer: free memory",
        ),
    ],
)
def test_whatever_becomes_of_a_burst_is_an_outcome(code: str, kind: str, says: str) -> None:
    found = outcome(code)
    assert (found.outcome, found.figures, found.run) == (kind, None, None)
    assert says in found.error


def test_a_burst_that_takes_too_long_is_ended() -> None:
    """Though it keeps on telling of its steps."""
    begin_s = time.monotonic()
    found = outcome("[(say(step_s=0.1, steps=1), time.sleep(0.1)) for _ in range(600)]", timeout_s=0.6)
    assert (found.outcome, found.error) == ("timed_out", "not finished within 0.6 s")
    assert time.monotonic() - begin_s < 15


def test_a_burst_is_ended_when_the_budget_is_long_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.3)
    with runner(EACH + "    time.sleep(60)") as worker:
        found = worker.run(JOB._replace(left_s=0.2))
    assert (found.outcome, found.error) == ("timed_out", "not finished within 0.5 s: the budget had ended")


def test_the_next_burst_gets_a_fresh_worker_after_a_crash(tmp_path: Path) -> None:
    once = f"""
    if os.path.exists({str(tmp_path / "flag")!r}):
        {MEASURED}
    else:
        open({str(tmp_path / "flag")!r}, "w").close()
        os._exit(1)
"""
    with runner(EACH + once) as worker:
        assert [worker.run(JOB).outcome for _ in range(3)] == ["crashed", "done", "done"]


def test_the_machine() -> None:
    with runner(EACH + f"    {MACHINE}") as worker:
        found = worker.probe("auto")
    assert (found.device, found.available_bytes, found.quantization_problem) == (CPU, 5, "no")
    assert found.environment == made_up.environment(CPU)
    assert (found.remark, found.devices) == ("so it is", 2)


def test_a_device_that_is_not_there() -> None:
    with (
        runner(EACH + "    say(refused='--device is cuda: no GPU')") as worker,
        pytest.raises(BurstRefused, match="no GPU") as refused,
    ):
        worker.probe("cuda")
    assert refused.value.exit_code == 2
    with runner(EACH + "    say(failed='RuntimeError: odd')") as worker, pytest.raises(BurstFailed, match="odd"):
        worker.probe("cuda")


def test_a_worker_that_cannot_fork_is_started_for_every_burst() -> None:
    """It says so when CUDA was begun before it could fork; from then on it is asked for a process of its own."""
    code = f"""
job = json.loads(sys.stdin.readline())
if "--fresh" in sys.argv:
    {MEASURED}
else:
    say(fresh=True)
    sys.stdin.readline()
"""
    with runner(code) as worker:
        assert [worker.run(JOB).outcome for _ in range(2)] == ["done", "done"]
        assert worker._child is None
        assert worker._command[-1] == "--fresh"


def test_missing_torch_names_the_remedy() -> None:
    code = """print('{"missing": "torch"}', flush=True)"""
    with (
        BurstRunner((sys.executable, "-c", code)) as worker,
        pytest.raises(
            SourceUnavailable, match=r"torch, which is not installed: pip install 'finetune-advisor\[calibrate\]'"
        ),
    ):
        worker.probe("auto")


@pytest.fixture(scope="module")
def worker() -> Any:
    pytest.importorskip("torch")
    with BurstRunner(timeout_s=60.0) as found:
        found.probe("cpu")
        yield found


def test_two_bursts_in_two_processes(worker: BurstRunner) -> None:
    found = [worker.run(JOB) for _ in range(2)]
    assert [one.outcome for one in found] == ["done", "done"]
    assert found[0].figures is not None
    assert found[1].figures is not None
    assert found[0].figures.peak_allocated_bytes == found[1].figures.peak_allocated_bytes
    assert worker._child is not None


def test_the_budget_ends_a_burst_with_the_steps_that_it_has(worker: BurstRunner) -> None:
    begin_s = time.monotonic()
    found = worker.run(JOB._replace(steps=100_000, left_s=2.0))
    assert found.outcome == "done"
    assert found.run is not None
    assert 1 <= len(found.run.step_s) < 100_000
    assert time.monotonic() - begin_s < 12
    least = worker.run(JOB._replace(steps=100_000, left_s=0.001)).run
    assert least is not None
    assert (len(least.warm_up_s), len(least.step_s)) == (1, 1)


def test_a_library_that_raises(worker: BurstRunner) -> None:
    odd = TINY | {"hidden_size": 65}  # no multiple of the heads
    assert worker.run(JOB._replace(config=odd)).outcome == "failed"
    assert "rejects" in worker.run(JOB._replace(config={"model_type": "llama", "hidden_size": "wide"})).error


def test_a_recipe_that_cannot_be(worker: BurstRunner) -> None:
    assert "flash" in worker.run(JOB._replace(recipe=Recipe(method="lora", attention="flash"))).error


def test_memory_that_is_not_there(worker: BurstRunner) -> None:
    """A batch of some 8 PiB."""
    huge = JOB._replace(recipe=Recipe(method="lora", micro_batch=1_000_000), seq_len=10_000_000)
    found = worker.run(huge)
    assert found.outcome == "out_of_memory"
    assert "can't allocate memory" in found.error


def test_kill_nine_of_the_burst_alone(worker: BurstRunner) -> None:
    """The process that forked it lives on and does the next one."""
    assert worker._child is not None
    parent = worker._child._process.pid
    killed: list[int] = []

    def kill(_: Any) -> None:
        if not killed:
            killed.extend(children_of(parent))
            os.kill(killed[0], signal.SIGKILL)

    long = JOB._replace(steps=100_000, limit_s=60.0)
    found = worker.run(long, kill)
    assert (found.outcome, len(killed)) == ("crashed", 1)
    assert "was killed (signal 9)" in found.error
    assert worker.run(JOB).outcome == "done"
    assert worker._child._process.pid == parent
