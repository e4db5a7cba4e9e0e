"""`calibrate --method all`, as it is typed, with a stand-in for the worker."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import SourceUnavailable
from calibrate import burst_cli, cli
from calibrate.child import BurstFailed, BurstRefused
from calibrate.cpu_profile import CPU_PROFILE
from calibrate.rates import Benchmarks, Sample
from calibrate.rates_store import store_rates, stored_rates
from calibrate.runner import BurstJob, Machine, Result
from calibrate.store import Store
from calibrate.tuning import devices_folder
from tests.calibrate import made_up
from tests.calibrate.made_up import CPU, TINY, environment, gpu, machine
from tests.calibrate.test_fit import CPU_CARD, made_up_samples
from tests.calibrate.test_rates_store import FOUND

SAMPLES = tuple(made_up_samples(CPU_CARD, CPU_PROFILE, "cpu"))
DONE = Result("done", made_up.figures(), made_up.run(), "")


class StubRunner:
    """Stands for BurstRunner; tests set what it finds and what becomes of each method."""

    here: Any = machine()
    results: Mapping[str, Result] = {}
    jobs: list[BurstJob] = []  # noqa: RUF012 - made anew for each test
    asked_for = ""
    takes_s = 0.0
    rates_limit_s = 0.0
    samples: tuple[Sample, ...] = ()
    attention_found: Any = ()
    measured: list[str] = []  # noqa: RUF012 - made anew for each test

    commands: list[tuple[Any, ...]] = []  # noqa: RUF012 - made anew for each test

    def __init__(self, *given: Any, timeout_s: float = 0.0) -> None:
        self.commands.append(given)

    def __enter__(self) -> StubRunner:
        return self

    def __exit__(self, *stop: object) -> None:
        pass

    def probe(self, device: str) -> Machine:
        type(self).asked_for = device
        if isinstance(self.here, Exception):
            raise self.here
        assert isinstance(self.here, Machine)
        return self.here

    def rates(self, machine: Machine, limit_s: float) -> tuple[Any, ...]:
        type(self).rates_limit_s = limit_s
        self.measured.append("rates")
        return self.samples

    def attention(self, machine: Machine, limit_s: float) -> tuple[Any, ...]:
        self.measured.append(f"attention, at most {limit_s:g} s")
        if isinstance(self.attention_found, Exception):
            raise self.attention_found
        return tuple(self.attention_found)

    def run(self, job: BurstJob, hear: Callable[[Mapping[str, Any]], None]) -> Result:
        self.jobs.append(job)
        hear({"step_s": 0.1, "steps": 1})
        if self.takes_s:
            time.sleep(self.takes_s)
        return self.results.get(job.recipe.method, DONE)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubRunner]:
    monkeypatch.setattr(burst_cli, "BurstRunner", StubRunner)
    fresh = {
        "here": machine(),
        "results": {},
        "jobs": [],
        "takes_s": 0.0,
        "measured": [],
        "samples": (),
        "commands": [],
    }
    for name, value in (fresh | {"attention_found": ()}).items():
        monkeypatch.setattr(StubRunner, name, value)
    return StubRunner


class Door:
    """Runs the command on the tiny model and keeps what it printed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys, self.store = monkeypatch, capsys, Store(folder / "kept")
        self.model = folder / "tiny" / "config.json"
        self.model.parent.mkdir()
        self.model.write_text(json.dumps(TINY))
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        given = ["calibrate", *map(str, arguments)]
        given += [] if "--model" in given else ["--model", str(self.model)]
        given += [] if "--out" in given else ["--out", str(self.store.folder)]
        self._monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        self.out, self.err = self._capsys.readouterr()
        return int(stop.value.code or 0)


@pytest.fixture
def calibrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    return Door(tmp_path, monkeypatch, capsys)


def test_table_and_lines(stub: type[StubRunner], calibrate: Door) -> None:
    assert calibrate("--seq-len", 16, "--seq-len", "32") == 0
    lines = calibrate.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "tiny; cpu: Some CPU, 1 thread"
    assert sum(line.startswith("qdora ") for line in lines) == 4
    first, *news, kept, _ = calibrate.err.splitlines()
    assert first == "measuring the rates of Some CPU"
    assert news[0].startswith("[ 1/20] tiny full 1x16: peak ")
    assert kept == f"saved in {calibrate.store.path}"
    assert len(news) == 20
    assert stub.rates_limit_s == 30.0
    assert stub.asked_for == "auto"
    assert {job.steps for job in stub.jobs} == {0}


def test_json_is_one_object_a_burst_with_equal_keys(stub: type[StubRunner], calibrate: Door) -> None:
    assert calibrate("--json", "--seq-len", 16, "--method", "lora,qdora", "--no-gradient-checkpointing") == 0
    found = [json.loads(line) for line in calibrate.out.splitlines()]
    assert [one["method"] for one in found] == ["lora", "qdora"]
    for one in found:
        assert one["source"] == "cpu"
        assert one["predicted"].keys() == one["measured"].keys()
        assert {"peak_allocated_bytes", "peak_reserved_bytes", "micro_step_s", "step_s"} <= one["predicted"].keys()
        assert one["environment"]["device"]["name"] == "Some CPU"
        assert one["burst"]["run"]["step_s"] == [0.1] * 9


def test_the_second_time_nothing_is_measured(stub: type[StubRunner], calibrate: Door) -> None:
    assert calibrate("--seq-len", 16) == 0
    assert len(stub.jobs) == 10
    assert calibrate("--seq-len", 16) == 0
    assert len(stub.jobs) == 10
    assert calibrate.err.count("(measured before)") == 10
    assert calibrate("--seq-len", 16, "--again", "--steps", 4) == 0
    assert len(stub.jobs) == 20
    assert stub.jobs[-1].steps == 4


def test_attention_is_measured_once_and_shown_beside_the_estimate(stub: type[StubRunner], calibrate: Door) -> None:
    stub.samples, stub.attention_found = SAMPLES, FOUND.attention
    assert calibrate("--seq-len", 16, "--method", "lora", "--no-gradient-checkpointing") == 0
    assert stub.measured == ["rates", "attention, at most 5 s"]
    assert "measuring attention by kernel" in calibrate.err
    (row,) = (line for line in calibrate.err.splitlines() if line.startswith("flash "))
    assert row.split()[:5] == ["flash", "no", "float32", "1.00", "ms"]
    assert calibrate("--seq-len", 16, "--method", "lora", "--no-gradient-checkpointing") == 0
    assert len(stub.measured) == 2
    folder = devices_folder(calibrate.store)
    store_rates(CPU, environment(), Benchmarks(SAMPLES), folder)  # as an older version wrote
    assert calibrate("--seq-len", 16, "--method", "lora", "--no-gradient-checkpointing") == 0
    assert stub.measured[2:] == ["attention, at most 5 s"]
    assert stored_rates(CPU, environment(), folder) == Benchmarks(SAMPLES, FOUND.attention)


def test_attention_that_kills_its_process_costs_nothing_else(stub: type[StubRunner], calibrate: Door) -> None:
    stub.samples, stub.attention_found = SAMPLES, BurstFailed("the worker was ended by signal 11")
    assert calibrate("--seq-len", 16, "--method", "lora", "--no-gradient-checkpointing") == 0
    assert "attention was not measured: the worker was ended by signal 11" in calibrate.err
    assert stored_rates(CPU, environment(), devices_folder(calibrate.store)) == Benchmarks(SAMPLES)
    assert len(stub.jobs) == 1


def test_a_crash_is_code_one_and_the_others_are_measured(stub: type[StubRunner], calibrate: Door) -> None:
    stub.results = {"dora": Result("crashed", None, None, "signal 11")}
    assert calibrate("--seq-len", 16, "--no-gradient-checkpointing") == 1
    assert len(stub.jobs) == 5
    (dora,) = (line for line in calibrate.out.splitlines() if line.startswith("dora "))
    assert "crashed" in dora
    assert any("dora 1x16: crashed: signal 11" in line for line in calibrate.err.splitlines())


def test_out_of_memory_where_it_fits_is_the_worst(stub: type[StubRunner], calibrate: Door) -> None:
    stub.results = {"full": Result("out_of_memory", None, None, "CUDA out of memory")}
    assert calibrate("--seq-len", 16, "--no-gradient-checkpointing") == 1
    assert "WORST: tiny full 1x16 ran out of memory although it was predicted to fit" in calibrate.out
    assert "OUT OF MEMORY, though only 0.8" in calibrate.err


def test_out_of_memory_where_it_was_tight_is_a_result(stub: type[StubRunner], calibrate: Door) -> None:
    stub.results = {"full": Result("out_of_memory", None, None, "CUDA out of memory")}
    stub.here = machine(available_gib=1.0)
    assert calibrate("--seq-len", 16, "--no-gradient-checkpointing") == 0
    assert "WORST" not in calibrate.out
    assert "full 1x16: out of memory: CUDA out of memory" in calibrate.err


def test_what_is_left_out_is_told(stub: type[StubRunner], calibrate: Door) -> None:
    stub.here = machine(problem="no kernel image")
    assert calibrate("--seq-len", 16) == 0
    assert "skipped tiny qlora 1x16 and 3 more: bitsandbytes cannot quantize on this device: no kernel" in calibrate.err
    assert {job.recipe.method for job in stub.jobs} == {"full", "lora", "dora"}


@pytest.mark.slow
def test_a_small_budget_leaves_bursts_for_later(stub: type[StubRunner], calibrate: Door) -> None:
    stub.takes_s = 0.3
    assert calibrate("--seq-len", 16, "--budget", "1s") == 0
    left = 10 - len(stub.jobs)
    assert left > 0
    assert f"no time left for {left} more bursts: run the same command to measure them" in calibrate.err
    assert stub.rates_limit_s == 0.25


def test_remarks_on_the_machine(stub: type[StubRunner], calibrate: Door) -> None:
    busy = made_up.Conditions(other_processes=2)
    stub.here = machine(gpu(), 100.0)._replace(conditions=busy, remark="there is a GPU, but")
    assert calibrate("--seq-len", 16, "--trainer", "trl") == 0
    assert "there is a GPU, but" in calibrate.err
    assert "2 other processes on the card: times will be marked" in calibrate.err
    assert "trl computes its loss in chunks" in calibrate.err


def test_default_models_are_those_of_the_device(stub: type[StubRunner], calibrate: Door) -> None:
    stub.here = machine(gpu(), 139.0)
    assert calibrate("--model", "llama-3.2-1b", "--method", "lora", "--micro-batch", 2) == 0
    assert {(job.recipe.micro_batch, job.seq_len) for job in stub.jobs} == {(2, 512)}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BurstRefused("--device is 'cuda': torch.cuda sees no GPU here"), 2),
        (SourceUnavailable("calibrate needs torch, which is not installed: pip install ..."), 4),
    ],
)
def test_a_machine_that_cannot(stub: type[StubRunner], calibrate: Door, error: Exception, code: int) -> None:
    stub.here = error
    assert calibrate("--device", "cuda") == code
    assert (calibrate.out, calibrate.err) == ("", f"calibrate: error: {error}\n")


def test_a_card_too_small_is_one_line(stub: type[StubRunner], calibrate: Door) -> None:
    stub.here = machine(gpu("NVIDIA Old", 1), 0.2)
    assert calibrate() == 2
    assert calibrate.err.count("\n") == 1
    assert "too small for the smallest burst" in calibrate.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--budget", "abc"),
        ("--budget", "0"),
        ("--budget", "-5min"),
        ("--budget", "9999h"),
        ("--budget", ""),
        ("--device", "gpu"),
        ("--method", "lora,foo"),
        ("--model", "lama-8b"),
        ("--model", "./none.json"),
        ("--seq-len", "x"),
        ("--seq-len", "0"),
        ("--micro-batch", "-1"),
        ("--steps", "0"),
        ("--rank", "0"),
        ("--trainer", "tlr"),
        ("--batch-size", "3", "--micro-batch", "2"),
        ("--quant", "nf5"),
        ("--timeout", "0"),
    ],
)
def test_bad_input_is_one_line_before_torch_is_asked(
    stub: type[StubRunner], calibrate: Door, arguments: tuple[str, ...]
) -> None:
    stub.asked_for = ""
    assert calibrate(*arguments) == 2
    assert (calibrate.out, calibrate.err.count("\n"), stub.asked_for) == ("", 1, "")
    assert calibrate.err.startswith("calibrate: error: ")


def test_a_folder_that_cannot_be_written_is_told_before_torch_is_asked(
    stub: type[StubRunner], calibrate: Door, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    stub.asked_for = ""
    assert calibrate("--out", tmp_path / "file") == 4
    assert "cannot be written" in calibrate.err
    assert stub.asked_for == ""


def test_a_model_without_a_formula_is_measured_with_what_transformers_says(
    stub: type[StubRunner], calibrate: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.calibrate.test_calibrate_cli import StubWorker

    monkeypatch.setattr(burst_cli, "TraceWorker", lambda: StubWorker(1.0))
    calibrate.model.write_text(json.dumps({"model_type": "zamba2", "hidden_size": 64}))
    assert calibrate("--seq-len", 16, "--method", "lora") == 0
    assert {job.recipe.attention for job in stub.jobs} == {"eager"}
    assert "no formula: " in calibrate.err
    (lora, _) = (line.split() for line in calibrate.out.splitlines() if line.startswith("lora "))
    assert lora[2] == "-"


def test_a_record_does_not_tell_where_a_model_lay(stub: type[StubRunner], calibrate: Door) -> None:
    assert calibrate("--seq-len", 16, "--method", "lora") == 0
    assert str(calibrate.model.parent.parent) not in calibrate.store.path.read_text()


def test_several_cards_share_a_burst(stub: type[StubRunner], calibrate: Door) -> None:
    """A launcher starts them, nothing is fitted, and the record says which cards it was."""
    stub.here = machine()._replace(devices=2)
    shared = ("--seq-len", 16, "--method", "lora", "--gpus", 2, "--gradient-checkpointing")
    assert calibrate(*shared) == 0
    assert calibrate.out.splitlines()[0] == "tiny; cpu: Some CPU, 1 thread, ddp on 2"
    assert stub.measured == []
    (job,) = stub.jobs
    assert job.placement is not None
    assert job.placement.gpus == 2
    _, (command, *_) = stub.commands
    assert "torch.distributed.run" in command
    (kept,) = calibrate.store.read().results
    assert kept.placement == job.placement
    assert calibrate(*shared[:4], "--gradient-checkpointing") == 0  # one card's is another burst
    assert len(stub.jobs) == 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--gpus", 3), "must be at most 1, the cores here; add --dry-run for more"),
        (("--gpus", 4, "--nodes", 2, "--network-gbit", 100), "on this machine alone"),
        (("--gpus", 2, "--micro-batch", 4, "--mean-seq-len", 8), "on one card alone"),
        (("--gpus", 2, "--batch-size", 3), "multiple of --gpus times --micro-batch"),
    ],
)
def test_what_several_cards_cannot_run(stub: type[StubRunner], calibrate: Door, flags: Any, says: str) -> None:
    assert calibrate("--seq-len", 16, "--method", "lora", *flags) == 2
    assert says in calibrate.err
