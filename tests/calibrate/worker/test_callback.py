"""EstimateCallback in real runs of transformers' Trainer and trl's SFTTrainer on tiny CPU models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import PrinterCallback

import calibrate
from advisor.specs import METHODS, Recipe
from calibrate import EstimateCallback
from calibrate.measurement import Comparison
from calibrate.nvml import WatchedCard
from calibrate.store import Store
from calibrate.worker import callback, patches, trainer_step
from calibrate.worker import device as device_layer
from calibrate.worker.device import CudaDevice, Opened
from calibrate.worker.own_training import describe
from calibrate.worker.trainer_step import SEQ_LEN, preset_recipe
from tests.calibrate.fake_cuda import GIB, FakeCuda, fake_nvml, process
from tests.calibrate.made_up import figures

ROOT = Path(__file__).resolve().parents[3]
CONFIG = trainer_step.CONFIG | {
    "num_hidden_layers": 2,
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 352,
}
STEPS = 4


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trainer_step, "STEPS", STEPS)


def trainer_of(name: str, recipe: Recipe, folder: Path, config: dict[str, Any] = CONFIG) -> Any:
    make = {"transformers": trainer_step._plain_trainer, "trl": trainer_step._sft_trainer}[name]
    found = make(config, recipe, SEQ_LEN, str(folder))
    found.remove_callback(PrinterCallback)
    return found


def train(
    name: str, recipe: Recipe, folder: Path, config: dict[str, Any] = CONFIG, **options: Any
) -> tuple[Comparison | None, list[str]]:
    """(the callback's record, what it said)."""
    said: list[str] = []
    watch = EstimateCallback(say=said.append, **options)
    trainer = trainer_of(name, recipe, folder, config)
    trainer.add_callback(watch)
    trainer.train()
    return watch.record, said


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_transformers_trainer(method: Any, tmp_path: Path, foreign_bytes: int) -> None:
    """The recipe is the one that was trained, and the peak is what the formula says."""
    recipe = preset_recipe("transformers", method)
    found, said = train("transformers", recipe, tmp_path, store=tmp_path / "kept")
    assert found is not None
    assert found.measured is not None
    assert found.burst is not None
    assert found.burst.run is not None
    assert found.recipe == recipe.model_copy(update={"rank": 16, "alpha": 32.0} if method == "full" else {})
    assert (found.batch, found.seq_len, found.source) == (recipe.micro_batch, SEQ_LEN, "cpu")
    assert found.predicted is not None
    own = found.measured.peak_allocated_bytes - foreign_bytes
    assert own == pytest.approx(found.predicted.peak_allocated_bytes, rel=0.01)
    assert len(found.burst.run.warm_up_s) == 1
    assert len(found.burst.run.step_s) == STEPS - 2  # the third ran under the profiler
    assert found.burst.origin == "training"
    assert "_name_or_path" not in found.burst.config
    assert Store(tmp_path / "kept").read().results == (found,)
    assert said[0].startswith("calibrate: peak 0.0")
    assert said[1].startswith("calibrate: saved in ")
    assert len(said) == 2


def test_trls_trainer(tmp_path: Path, foreign_bytes: int) -> None:
    """Its loss takes the way of CUDA here, so that its memory is the one that is predicted."""
    pytest.importorskip("trl")
    recipe = preset_recipe("trl", "lora")
    with patches.silent_tiles(True):
        found, said = train("trl", recipe, tmp_path)
    assert found is not None
    assert found.recipe == recipe
    assert found.measured is not None
    assert found.predicted is not None
    own = found.measured.peak_allocated_bytes - foreign_bytes
    assert own == pytest.approx(found.predicted.peak_allocated_bytes, rel=0.02)
    assert "tiles that its CUDA kernels do not" in said[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["transformers", "trl"])
def test_every_recipe_is_read_off_the_trainer(name: str, method: Any, tmp_path: Path) -> None:
    if name == "trl":
        pytest.importorskip("trl")
    recipe = preset_recipe(name, method)
    trainer = trainer_of(name, recipe, tmp_path)
    found = describe(trainer.model, trainer.args)
    idle = {"rank": 16, "alpha": 32.0, "magnitude_dtype": "float32"} if method == "full" else {}
    if method == "full":
        idle["adapter_dtype"] = "float32"
    assert found.recipe == recipe.model_copy(update=idle)
    assert found.config["model_type"] == "llama"
    assert found.name == "llama"


@pytest.mark.parametrize(
    "knobs",
    [
        {"target_modules": ("q_proj", "v_proj")},
        {"dropout": 0.1},
        {"adapter_dtype": "bfloat16"},
        {"reentrant": True},
        {"optimizer": "adafactor"},
        {"gradient_checkpointing": False},
        {"attention": "eager"},
        {"autocast": False},
        {"target_modules": ("down_proj", "gate_proj", "k_proj", "lm_head", "o_proj", "q_proj", "up_proj", "v_proj")},
    ],
)
def test_other_knobs_are_read_too(knobs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "target_modules" in knobs:
        lora = trainer_step._lora
        monkeypatch.setattr(trainer_step, "_lora", lambda recipe: _aimed(lora(recipe), recipe.target_modules))
    recipe = preset_recipe("transformers", "dora", knobs)
    if "adapter_dtype" in knobs:
        recipe = recipe.model_copy(update={"magnitude_dtype": knobs["adapter_dtype"]})
    trainer = trainer_of("transformers", recipe, tmp_path)
    assert describe(trainer.model, trainer.args).recipe == recipe


def _aimed(options: Any, targets: tuple[str, ...]) -> Any:
    options.target_modules = set(targets)
    return options


def test_what_the_arguments_say_besides_is_noted(tmp_path: Path) -> None:
    trainer = trainer_of("transformers", preset_recipe("transformers", "full"), tmp_path)
    args = SimpleNamespace(
        **{
            name: getattr(trainer.args, name)
            for name in (
                "bf16",
                "fp16",
                "optim",
                "gradient_checkpointing",
                "gradient_checkpointing_kwargs",
                "device",
                "per_device_train_batch_size",
                "gradient_accumulation_steps",
            )
        }
    )
    args.use_liger_kernel, args.torch_compile, args.fsdp, args.world_size, args.optim = True, True, "full", 4, "lion"
    notes = " ".join(describe(trainer.model, args).notes)
    for word in ("Liger", "torch.compile", "fsdp", "one of 4", "lion is treated as adamw"):
        assert word in notes


def test_a_job_that_will_not_fit_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_layer.host, "available_bytes", lambda: 64 * 2**20)
    _, said = train("transformers", preset_recipe("transformers", "lora"), tmp_path, seq_len=SEQ_LEN)
    assert said[0].startswith("calibrate: this run will not fit: ")
    assert f"rows of {SEQ_LEN} tokens, 0.062 GiB available" in said[0]
    assert sum("will not fit" in line for line in said) == 1


def test_without_a_known_length_it_is_told_before_the_second_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_layer.host, "available_bytes", lambda: 64 * 2**20)
    said: list[tuple[int, str]] = []
    trainer = trainer_of("transformers", preset_recipe("transformers", "lora"), tmp_path)
    trainer.add_callback(EstimateCallback(say=lambda text: said.append((trainer.state.global_step, text))))
    trainer.train()
    (found,) = (step for step, text in said if "will not fit" in text)
    assert found == 1


def test_a_job_that_takes_longer_than_planned_is_told(tmp_path: Path) -> None:
    _, said = train("transformers", preset_recipe("transformers", "lora"), tmp_path, planned_s=0.001)
    assert sum(f"{STEPS} steps will take" in line and "the plan was" in line for line in said) == 1


def test_a_first_step_that_is_far_too_slow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = callback.predict

    def fast(*arguments: Any, **options: Any) -> Any:
        return ask(*arguments, **options)._replace(figures=figures(1.0, 1e-6))

    monkeypatch.setattr(callback, "predict", fast)
    _, said = train("transformers", preset_recipe("transformers", "lora"), tmp_path)
    assert sum(line.startswith("calibrate: the first step took ") for line in said) == 1


def test_lengths_are_recorded_as_they_come_and_held_against_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign_bytes: int
) -> None:
    lengths = [10, 20, 30, 40] * STEPS

    def rows(config: Any, recipe: Any, seq_len: int) -> list[dict[str, list[int]]]:
        return [
            {"input_ids": [7] * SEQ_LEN, "attention_mask": [1] * n + [0] * (SEQ_LEN - n), "labels": [7] * SEQ_LEN}
            for n in lengths
        ]

    monkeypatch.setattr(trainer_step, "_rows", rows)
    found, said = train("transformers", preset_recipe("transformers", "lora"), tmp_path, mean_seq_len=60)
    assert found is not None
    assert found.burst is not None
    assert found.burst.run is not None
    assert [tokens for _, tokens in found.burst.run.row_lengths] == [10, 10, 20, 20, 30, 30, 40, 40]
    assert found.burst.run.padding == pytest.approx(1 - 25 / SEQ_LEN)
    assert found.measured is not None
    assert found.predicted is not None
    own = found.measured.peak_allocated_bytes - foreign_bytes
    assert own == pytest.approx(found.predicted.peak_allocated_bytes, rel=0.01)
    assert "rows had 25 tokens on average and 40 at most; the plan was 60 on average" in said[-1]
    _, quiet = train("transformers", preset_recipe("transformers", "lora"), tmp_path, mean_seq_len=26)
    assert not any("rows had" in line for line in quiet)


def test_a_model_without_a_formula_is_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "spec_of", lambda *_: None)
    found, _ = train("transformers", preset_recipe("transformers", "lora"), tmp_path)
    assert found is not None
    assert found.predicted is None
    assert found.measured is not None


def test_trouble_of_its_own_never_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("of its own")

    monkeypatch.setattr(callback, "describe", fail)
    found, said = train("transformers", preset_recipe("transformers", "lora"), tmp_path)
    assert found is None
    assert said == ["calibrate: this run is no longer watched: of its own"]
    monkeypatch.undo()
    monkeypatch.setattr(trainer_step, "STEPS", STEPS)
    (tmp_path / "file").write_text("")
    found, said = train("transformers", preset_recipe("transformers", "lora"), tmp_path, store=tmp_path / "file")
    assert found is not None
    assert "cannot be written" in said[-1]


def test_on_a_card_its_own_counters_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = fake_nvml(nvmlDeviceGetComputeRunningProcesses=[process(1, 2.0), process(2, 2.0)])
    device = CudaDevice(FakeCuda(), "cpu", WatchedCard(shared, "card"))
    monkeypatch.setattr(callback, "open_device", lambda _: Opened(device, ""))
    found, _ = train("transformers", preset_recipe("transformers", "lora"), tmp_path)
    assert found is not None
    assert found.measured is not None
    assert found.source == "cuda"
    assert (found.measured.peak_allocated_bytes, found.measured.peak_reserved_bytes) == (5 * GIB, 6 * GIB)
    assert found.burst is not None
    assert found.burst.run is not None
    assert len(found.burst.run.step_s) == STEPS - 1
    assert found.burst.limit_bytes == GIB
    assert found.environment.device is not None
    assert found.environment.device.name == "NVIDIA Fake 8"


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, calibrate; print(sorted({'torch', 'transformers', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = calibrate.Nonsense
