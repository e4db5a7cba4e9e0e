"""`calibrate --method all` with the worker itself: real training of a tiny model, stopped at any moment."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from advisor.command import EXIT_BROKEN_PIPE
from calibrate.attention_rates import AttentionSample
from calibrate.store import Store
from calibrate.tuning import devices_folder
from tests.calibrate import made_up
from tests.calibrate.made_up import TINY
from tests.calibrate.processes import children_of, is_alive
from tests.every import EVERY_COMBINATION

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "calibrate.cli")


def typed(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The real command on the tiny model, both streams piped."""
    (folder / "tiny").mkdir(exist_ok=True)
    (folder / "tiny" / "config.json").write_text(json.dumps(TINY))
    given = ("--model", str(folder / "tiny"), "--seq-len", "32", "--device", "cpu", "--out", str(folder / "kept"))
    return subprocess.Popen(
        [*COMMAND, *given, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class Measured(NamedTuple):
    """What a real run left and printed."""

    store: Store
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """All five methods for real, once; the rates of this machine with them."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("measured")
    process = typed(folder, "--steps", "3", "--gradient-checkpointing", "--json")
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return Measured(Store(folder / "kept"), [json.loads(line) for line in out.splitlines()])


def test_all_five_methods_for_real(measured: Measured) -> None:
    """From the command line to real training and back: the predicted peak is right within 1 %."""
    assert [one["method"] for one in measured.rows] == ["full", "lora", "dora", "qlora", "qdora"]
    for one in measured.rows:
        predicted, found = (one[side]["peak_allocated_bytes"] for side in ("predicted", "measured"))
        assert predicted == pytest.approx(found, rel=0.01), one["method"]
        assert len(one["burst"]["run"]["step_s"]) == 3
        assert one["environment"]["device"]["kind"] == "cpu"
    assert len(measured.store.read().results) == 5


def test_attention_is_timed_by_kernel(measured: Measured) -> None:
    """A CPU has flash attention and math attention; of the others PyTorch's reason is kept."""
    (path,) = devices_folder(measured.store).glob("*.rates.json")
    samples = [AttentionSample.model_validate(one) for one in json.loads(path.read_text())["profile"]["attention"]]
    assert {one.kernel for one in samples if not one.refused} == {"flash", "math"}
    assert {one.kernel for one in samples if one.refused} == {"cudnn", "efficient"}
    assert {one.masked for one in samples} == {False, True}


def test_varying_rows_and_an_evaluation_for_real(tmp_path: Path, measured: Measured) -> None:
    """Every step within 1 %, the evaluation too, and what a CPU does not count is null."""
    shutil.copytree(devices_folder(measured.store), devices_folder(Store(tmp_path / "kept")))
    rows = ("--micro-batch", "8", "--mean-seq-len", "12", "--eval-batch", "8")
    process = typed(tmp_path, "--method", "lora", "--steps", "3", "--gradient-checkpointing", "--json", *rows)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    (one,) = map(json.loads, out.splitlines())
    burst, run = one["burst"], one["burst"]["run"]
    assert [step["predicted_bytes"] for step in burst["drawn"]] == pytest.approx(run["step_peak_bytes"], rel=0.01)
    assert run["step_reserved_bytes"] == [None] * 3
    assert one["predicted"]["evaluation_bytes"] == pytest.approx(one["measured"]["evaluation_bytes"], rel=0.01)
    (kept,) = Store(tmp_path / "kept").read().results
    assert (kept.kind, kept.schema_version) == ("varying", 2)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, *([signal.SIGKILL] if EVERY_COMBINATION else [])])
def test_stopped_at_any_moment_it_goes_on_where_it_was(
    tmp_path: Path, measured: Measured, signal_number: signal.Signals
) -> None:
    """It takes its worker and the running burst along, loses no finished burst, and a second run repeats none."""
    shutil.copytree(devices_folder(measured.store), devices_folder(Store(tmp_path / "kept")))
    arguments = ("--method", "lora,full", "--gradient-checkpointing", "--json")
    first = typed(tmp_path, *arguments, "--steps", "400")
    assert first.stdout is not None
    done = json.loads(first.stdout.readline())
    wait_for(lambda: len(Store(tmp_path / "kept").read().records) == 3)  # the second burst has begun
    (worker,) = children_of(first.pid)
    wait_for(lambda: len(children_of(worker)) == 1)
    (burst,) = children_of(worker)
    first.send_signal(signal_number)
    _, err = first.communicate(timeout=60)
    if signal_number == signal.SIGINT:
        assert first.returncode == 130
        assert "finished bursts are saved in" in err
        assert err.splitlines()[-1] == "interrupted"
        assert "Traceback" not in err
    else:
        assert first.returncode == -signal.SIGKILL
    wait_for(lambda: not is_alive(worker) and not is_alive(burst))
    second = typed(tmp_path, *arguments, "--steps", "3")
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    kept, fresh = (json.loads(line) for line in out.splitlines())
    assert kept == done
    assert (fresh["method"], len(fresh["burst"]["run"]["step_s"])) == ("full", 3)
    assert err.count("(measured before)") == 1
    assert Store(tmp_path / "kept").read().damaged == 0


def wait_for(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    """And has an exit code of its own."""
    Store(tmp_path).append(made_up.record())
    process = subprocess.Popen(
        [*COMMAND, "show", "--json", "--out", str(tmp_path)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (EXIT_BROKEN_PIPE, "")
