from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import SourceUnavailable
from advisor.specs import Recipe
from calibrate.manager import BurstFailed, BurstRefused, TraceWorker
from calibrate.measurement import Environment, Trace

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
HELLO = """
import json, sys, time
print(json.dumps({"environment": dict(torch="1", transformers="2", peft="3", bitsandbytes="4", python="5",
                                      platform="6")}), flush=True)
"""
TRACE = """
phases = [dict(phase=p, begin_bytes=100, peak_bytes=300, end_bytes=200, op="aten.mm", module="m", move=1)
          for p in ("forward", "backward", "optimizer")]
def trace(job):
    return {"trace": dict(recipe=job["recipe"], model_type=job["config"]["model_type"], batch=job["batch"],
            seq_len=job["seq_len"], base_weights_bytes=1, quantization_bytes=2, adapters_bytes=3, buffers_bytes=4,
            inputs_bytes=5, optimizer_states_bytes=6, trainable_parameters=7, phases=phases, trace_s=0.1)}
"""


def worker(code: str, limit_s: float = 20.0) -> TraceWorker:
    return TraceWorker((sys.executable, "-c", code), limit_s)


def ask(client: TraceWorker, model_type: str = "llama") -> tuple[Trace, Environment]:
    return client.trace({"model_type": model_type}, Recipe(method="lora"), MicroBatch(1, 64))


def test_trace_and_environment_arrive() -> None:
    with worker(HELLO + TRACE + "for line in sys.stdin: print(json.dumps(trace(json.loads(line))), flush=True)") as w:
        trace, environment = ask(w)
        again, _ = ask(w, "qwen2")
    assert (trace.model_type, trace.peak_bytes, environment.peft) == ("llama", 300, "3")
    assert again.model_type == "qwen2"


def test_crash_costs_one_job() -> None:
    code = (
        HELLO
        + TRACE
        + """
for line in sys.stdin:
    job = json.loads(line)
    if job["config"]["model_type"] == "bad":
        sys.exit("out of everything")
    print(json.dumps(trace(job)), flush=True)
"""
    )
    with worker(code) as w:
        with pytest.raises(BurstFailed, match="code 1: out of everything"):
            ask(w, "bad")
        assert ask(w)[0].peak_bytes == 300


def test_time_out_ends_the_child() -> None:
    with worker(HELLO + "import os; sys.stderr.write(str(os.getpid())); time.sleep(600)", limit_s=0.5) as w:
        start_s = time.monotonic()
        with pytest.raises(BurstFailed, match=r"0\.5 s"):
            ask(w)
        assert time.monotonic() - start_s < 15
        assert w._child is None


@pytest.mark.parametrize(("key", "kind"), [("refused", BurstRefused), ("failed", BurstFailed)])
def test_refusal_keeps_the_child(key: str, kind: type[Exception]) -> None:
    code = HELLO + f"for line in sys.stdin: print(json.dumps({{'{key}': 'no flash here'}}), flush=True)"
    with worker(code) as w:
        with pytest.raises(kind, match="no flash here"):
            ask(w)
        assert w._child is not None


def test_missing_library_names_the_remedy() -> None:
    remedy = r"torch.*pip install 'finetune-advisor\[calibrate\]'"
    code = """print('{"missing": "torch"}', flush=True)"""
    with worker(code) as w, pytest.raises(SourceUnavailable, match=remedy) as missing:
        ask(w)
    assert missing.value.exit_code == 4


def test_real_worker_without_torch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no', name='torch')")
    monkeypatch.syspath_prepend(tmp_path)
    with TraceWorker() as w, pytest.raises(SourceUnavailable, match="torch, which is not installed"):
        ask(w)


def test_child_that_never_starts_is_one_line() -> None:
    with worker("raise SystemExit('broken environment')") as w, pytest.raises(BurstFailed, match="broken environment"):
        ask(w)


INTERRUPTED = """
import functools, pathlib, sys
import calibrate.cli as cli
import calibrate.dry_run_cli
from calibrate.manager import TraceWorker
child = "import os, pathlib, time; pathlib.Path({pid!r}).write_text(str(os.getpid())); time.sleep(600)"
calibrate.dry_run_cli.TraceWorker = functools.partial(TraceWorker, (sys.executable, "-c", child))
sys.argv = ["calibrate", "--dry-run", "--model", {config!r}]
cli.main()
"""


def wait_for(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.05)


def test_interrupt_takes_the_child_along(tmp_path: Path) -> None:
    pid_file, config = tmp_path / "pid", tmp_path / "config.json"
    config.write_text('{"model_type": "llama"}')
    parent = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(pid=str(pid_file), config=str(config))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == 130
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
