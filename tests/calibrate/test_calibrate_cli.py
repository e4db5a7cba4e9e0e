from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import SourceUnavailable
from advisor.specs import Placement, Recipe
from calibrate import cli, dry_run_cli, stacks_cli
from calibrate.manager import BurstFailed, BurstRefused
from calibrate.measurement import Environment, LoadingPeaks, ModelFacts, PhasePeak, ShapeTraces, Trace

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = Environment(torch="1", transformers="2", peft="3", bitsandbytes="4", python="5", platform="6")
STATIC_TERMS = ("base_weights_bytes", "quantization_bytes", "adapters_bytes", "optimizer_states_bytes")


def made_up_trace(recipe: Recipe, batch: int, seq_len: int) -> Trace:
    phases = tuple(
        PhasePeak(
            phase=name, begin_bytes=2**30, peak_bytes=2**31, end_bytes=2**30, op="aten.mm", module="lm_head", move=1
        )
        for name in ("forward", "backward", "optimizer")
    )
    return Trace(
        recipe=recipe,
        model_type="llama",
        batch=batch,
        seq_len=seq_len,
        base_weights_bytes=2**30,
        quantization_bytes=0,
        adapters_bytes=0,
        buffers_bytes=0,
        inputs_bytes=0,
        optimizer_states_bytes=0,
        trainable_parameters=1,
        phases=phases,
        trace_s=0.1,
    )


class StubWorker:
    """Answers every job at once; `broken` maps a method to the error that it raises."""

    broken: dict[str, Exception] = {}  # noqa: RUF012 - tests replace it
    asked: list[tuple[Recipe, MicroBatch, MicroBatch | None]] = []  # noqa: RUF012

    def __init__(self, limit_s: float, folders: object = ()) -> None:
        type(self).asked = []

    def __enter__(self) -> StubWorker:
        return self

    def __exit__(self, *stop: object) -> None:
        pass

    def trace(
        self,
        config: Any,
        recipe: Recipe,
        batch: MicroBatch,
        evaluated: MicroBatch | None = None,
        code: str = "",
        placement: Placement | None = None,
    ) -> tuple[Trace, Environment]:
        self.asked.append((recipe, batch, evaluated))
        if recipe.method in self.broken:
            raise self.broken[recipe.method]
        found = made_up_trace(recipe, batch.rows, batch.tokens)
        return found.model_copy(
            update={"rows": batch.kind, "evaluation_peak_bytes": 2**29 if evaluated else 0}
        ), ENVIRONMENT

    def loading(self, config: Any, recipe: Recipe) -> LoadingPeaks:
        return LoadingPeaks(loading_bytes=3 * 2**20, loaded_bytes=2**20, preparing_bytes=2 * 2**20)

    def facts(self, config: Any, code: str = "") -> ModelFacts:
        if "facts" in self.broken:
            raise self.broken["facts"]
        return ModelFacts(
            architecture=config["model_type"],
            kind="AutoModelForCausalLM",
            parameters=7,
            max_position_embeddings=0,
            default_attention="eager",
            breaks=(),
        )

    def shapes(self, config: Any, recipe: Recipe, shapes: Any, code: str = "") -> ShapeTraces:
        raise BurstFailed("no shapes from a stub")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubWorker]:
    monkeypatch.setattr(dry_run_cli, "TraceWorker", StubWorker)
    monkeypatch.setattr(StubWorker, "broken", {})
    return StubWorker


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of `calibrate` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["calibrate", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_flags_of_bursts_mean_nothing_in_a_dry_run(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--dry-run", "--model", "llama-8b", "--method", "lora", "--budget", "1min", "--again") == 0
    assert capsys.readouterr().err == "calibrate: warning: --budget, --again have no effect with --dry-run\n"


def test_table_fits_and_names_every_method(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--dry-run", "--model", "llama-70b") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    for method in ("full", "lora", "dora", "qlora", "qdora"):
        assert sum(line.startswith(f"{method} ") and "formula" in line for line in lines) == 1
        assert f"{method} peaks in forward: aten.mm in lm_head" in lines
    assert not any("…" in line for line in lines)
    assert sum("2.000" in line for line in lines) == 5


def test_json_has_the_same_keys_on_both_sides(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(
        monkeypatch,
        "--dry-run",
        "--model",
        "llama-8b",
        "--method",
        "lora,qdora",
        "--json",
        "--rank",
        "8",
        "--batch-size",
        "6",
        "--micro-batch",
        "2",
        "--seq-len",
        "99",
        "--quant",
        "fp4",
    )
    assert code == 0
    lora, qdora = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert lora["source"] == "trace"
    assert lora["predicted"].keys() == lora["measured"].keys()
    assert lora["environment"] == ENVIRONMENT.model_dump()
    assert (lora["recipe"]["rank"], lora["recipe"]["alpha"], lora["recipe"]["quant"]) == (8, 16.0, "none")
    assert (qdora["recipe"]["quant"], qdora["recipe"]["gradient_accumulation"]) == ("fp4", 3)
    assert [(batch, evaluated) for _, batch, evaluated in stub.asked] == [(MicroBatch(2, 99), None)] * 2


PACKED = ("--packing", "--packing-strategy", "position-ids")


@pytest.mark.parametrize(
    ("flags", "batch", "evaluated"),
    [
        (("--mean-seq-len", "30"), MicroBatch(2, 99, True), None),
        (("--mean-seq-len", "30", "--pad-to-multiple-of", "8"), MicroBatch(2, 104, True), None),
        (("--mean-seq-len", "30", "--eval-batch", "3"), MicroBatch(2, 99, True), MicroBatch(3, 99, True)),
        (("--eval-batch", "3"), MicroBatch(2, 99), MicroBatch(3, 99)),
        ((*PACKED, "--eval-batch", "3"), MicroBatch(1, 198, True, True), MicroBatch(1, 297, True, True)),
        (("--packing",), MicroBatch(2, 99), None),
        (("--packing", "--packing-strategy", "varlen"), MicroBatch(2, 99), None),
    ],
)
def test_flags_about_rows_choose_what_is_traced(
    stub: type[StubWorker],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    batch: MicroBatch,
    evaluated: MicroBatch | None,
) -> None:
    asked = ("--dry-run", "--method", "lora", "--micro-batch", "2", "--seq-len", "99", "--model", "smollm2-135m")
    assert run(monkeypatch, *asked, *flags) == 0
    assert [(batch, evaluated) for _, batch, evaluated in stub.asked] == [(batch, evaluated)]
    printed = capsys.readouterr()
    assert (f", {batch.kind}, GiB" in printed.out) == (batch.kind != "full")
    assert ("read from source" in printed.out) == (batch.kind != "full")
    assert ("evaluates 3 rows with 0.500 GiB" in printed.out) == (evaluated is not None)
    assert ("no kernel that keeps examples apart" in printed.err) == ("varlen" in flags)


def test_rows_that_contradict_are_refused(stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--dry-run", "--seq-len", "99", "--mean-seq-len", "100") == 2
    assert not stub.asked


@pytest.mark.parametrize(
    "flags", [("--task", "classification"), ("--dry-run", "--labels", "3"), ("--dry-run", "--task", "ranking")]
)
def test_a_task_that_cannot_be_traced_is_refused(
    flags: tuple[str, ...], stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, *flags) == 2
    assert not stub.asked


def test_loading_is_traced_for_a_quantized_base(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--dry-run", "--method", "lora,qlora", "--model", "smollm2-135m") == 0
    printed = capsys.readouterr().out
    assert "qlora, 1 of 30 layers, 2,048 of 49,152 words, MiB by formula" in printed
    assert "lora, 1 of 30" not in printed.replace("qlora", "")
    assert printed.count("preparing") == 1
    assert run(monkeypatch, "--dry-run", "--method", "qlora", "--model", "mixtral-8x7b") == 0
    assert "one layer of mixtral-8x7b alone is" in capsys.readouterr().err


def test_attention_is_the_models_own_unless_asked(stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "--dry-run", "--model", "gemma-2-2b", "--method", "lora")
    assert stub.asked[0][0].attention == "eager"
    run(monkeypatch, "--dry-run", "--model", "gemma-2-2b", "--method", "lora", "--attention", "sdpa")
    assert stub.asked[0][0].attention == "sdpa"


def test_a_trainers_knobs_are_traced(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--dry-run", "--model", "llama-8b", "--method", "lora")
    assert run(monkeypatch, *asked, "--trainer", "litgpt") == 0
    assert (stub.asked[0][0].autocast, stub.asked[0][0].optimizer) == (True, "adamw_foreach")
    assert capsys.readouterr().err == (
        "litgpt: transformers' step with its defaults; `advise trainers litgpt` says what differs\n"
    )
    assert run(monkeypatch, *asked, "--trainer", "transformers") == 0
    assert not capsys.readouterr().err
    assert run(monkeypatch, *asked, "--trainer", "trl") == 0
    assert stub.asked[0][0].loss == "chunked"
    stub.asked.clear()
    capsys.readouterr()
    assert run(monkeypatch, *asked, "--trainer", "") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not stub.asked


def test_failed_burst_leaves_the_others(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stub, "broken", {"dora": BurstFailed("the worker ended")})
    assert run(monkeypatch, "--dry-run", "--model", "llama-8b", "--json") == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["method"] for line in printed.out.splitlines()] == ["full", "lora", "qlora", "qdora"]
    assert printed.err == "llama-8b dora: the worker ended\n"


def test_missing_torch_stops_at_once(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stub, "broken", {"full": SourceUnavailable("calibrate needs torch")})
    assert run(monkeypatch, "--dry-run", "--model", "llama-8b") == 4
    assert capsys.readouterr().err == "calibrate: error: calibrate needs torch\n"
    assert len(stub.asked) == 1


def test_methods_may_be_repeated(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--dry-run", "--model", "llama-8b", "--method", "lora", "--method", "dora") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if " formula " in line] == ["lora", "dora"]


def test_architecture_without_formula_is_still_traced(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "zamba2", "hidden_size": 64}))
    assert run(monkeypatch, "--dry-run", "--model", str(tmp_path), "--method", "lora") == 0
    printed = capsys.readouterr()
    assert "no formula" in printed.err
    assert "measures it without a GPU" not in printed.err
    assert "is not in the profile: no shapes from a stub" in printed.err
    assert "formula" not in printed.out
    assert "2.000" in printed.out
    assert stub.asked[0][0].attention == "eager"


def test_architecture_that_nobody_knows_is_one_line(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such"}))
    monkeypatch.setattr(stub, "broken", {"facts": BurstRefused("transformers does not know it")})
    assert run(monkeypatch, "--dry-run", "--model", str(tmp_path), "--method", "lora") == 2
    printed = capsys.readouterr()
    assert (printed.out, stub.asked) == ("", [])
    assert printed.err.splitlines()[1:] == [f"{tmp_path}: transformers does not know it"]


def test_own_code_needs_a_local_folder(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"model_type": "no_such", "auto_map": {"AutoModelForCausalLM": "m.M"}}))
    assert run(monkeypatch, "--dry-run", "--model", str(path), "--trust-remote-code") == 2
    assert "is not a local folder" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--method", "lroa"),
        ("--model", "lama-8b"),
        ("--rank", "0"),
        ("--seq-len", "-1"),
        ("--dropout", "nan"),
        ("--quant", "nf5"),
        ("--batch-size", "3", "--micro-batch", "2"),
        ("--no-such-flag",),
        ("--model", "./none.json"),
        ("--timeout", "0"),
        ("--seq-len", "8", "--seq-len", "16"),
    ],
)
def test_bad_input_is_one_line(
    stub: type[StubWorker],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    assert run(monkeypatch, "--dry-run", *arguments) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n"), printed.err.startswith("calibrate: error: ")) == ("", 1, True)


@pytest.mark.process
def test_parent_never_loads_torch() -> None:
    code = "import sys, calibrate.commands; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.process
def test_real_dry_run_agrees_with_the_formula(tmp_path: Path, tiny: dict[str, dict[str, Any]]) -> None:
    """From the command line to the child and back; the static terms are equal to the byte."""
    pytest.importorskip("torch")
    (tmp_path / "config.json").write_text(json.dumps(tiny["qwen2"]))
    done = subprocess.run(
        [sys.executable, "-m", "calibrate.cli", "--dry-run", "--model", str(tmp_path), "--json", "--seq-len", "64"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["method"] for line in found] == ["full", "lora", "dora", "qlora", "qdora"]
    for line in found:
        assert [line["predicted"][term] for term in STATIC_TERMS] == [line["measured"][term] for term in STATIC_TERMS]


def test_other_versions_are_traced_from_their_folders(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINETUNE_ADVISOR_DATA", str(tmp_path))
    arguments = ("--dry-run", "--model", "llama-8b", "--method", "lora", "--stack", "peft-0.11")
    assert run(monkeypatch, *arguments) == 4
    assert "run `calibrate stack peft-0.11`" in capsys.readouterr().err
    (tmp_path / "stacks" / "peft-0.11").mkdir(parents=True)
    (tmp_path / "stacks" / "peft-0.11" / "complete").touch()
    assert run(monkeypatch, *arguments) == 0
    assert [recipe.stack for recipe, _, _ in stub.asked] == [("peft-0.11",)]


def test_experts_that_are_not_mirrored_are_traced_without_a_formula(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run_cli, "folders", lambda names: ())
    names = "transformers-4.57,peft-0.18,bitsandbytes-0.49"
    assert run(monkeypatch, "--dry-run", "--model", "gpt-oss-20b", "--method", "lora", "--stack", names) == 0
    shown = capsys.readouterr()
    assert "no formula: the experts of gpt_oss in transformers 4.57 are not mirrored" in shown.err
    assert "formula " not in shown.out


def test_bursts_run_the_installed_libraries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--method", "lora", "--stack", "peft-0.11") == 2
    assert "add --dry-run to trace others" in capsys.readouterr().err


def test_a_folder_is_made_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINETUNE_ADVISOR_DATA", str(tmp_path))
    asked: list[str] = []
    monkeypatch.setattr(stacks_cli, "run_pip", lambda folder, requirements: asked.extend(requirements))
    for _ in range(2):
        assert run(monkeypatch, "stack", "peft==0.11.1") == 0
    assert asked == ["peft==0.11.*"]
    assert "already" in capsys.readouterr().out
    assert run(monkeypatch, "stack", "torch-2.13") == 2
    assert "nothing to make" in capsys.readouterr().err


def test_one_of_several_cards(
    stub: type[StubWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--dry-run", "--model", "smollm2-135m", "--method", "lora", "--gpus", "8", "--sharding", "fsdp2")
    assert run(monkeypatch, *asked, "--json") == 0
    (found,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (found["placement"]["gpus"], found["placement"]["sharding"]) == (8, "fsdp2")
    assert found["predicted"].keys() == found["measured"].keys()
    assert run(monkeypatch, *asked) == 0
    title, names, *_ = capsys.readouterr().out.splitlines()
    assert title == "smollm2-135m, 1 x 512 tokens, one of 8 cards (fsdp2), GiB"
    assert names.split() == ["method", "weights", "adapters", "optim", "static", "forward", "peak", "error"]
    assert run(monkeypatch, *asked, "--batch-size", "12") == 2
    assert run(monkeypatch, *asked, "--stack", "transformers-4.57") == 2
    assert "one card alone" in capsys.readouterr().err
