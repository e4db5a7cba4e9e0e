"""Every target of --write and every method: its own parser takes what is written, and it is read back as the same run.

Parsers that are not installed are left out with the reason; what they know is recorded in tests/export.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from advisor.advice.advise import advise
from advisor.advice.check import check
from advisor.answer import Advice
from advisor.configs.tree import yaml_tree
from advisor.export import STARTERS, TARGETS, Target
from advisor.export.run import TrainingFile
from advisor.export.training_file import training_file
from advisor.specs import METHODS, Method, Trainer

CARD = "a100-80gb"
TRAINER: dict[Target, Trainer] = {
    "python": "transformers",
    "trl": "trl",
    "axolotl": "axolotl",
    "llamafactory": "llamafactory",
    "unsloth": "unsloth",
    "torchtune": "torchtune",
    "ms-swift": "ms-swift",
    "accelerate": "transformers",
    "skypilot": "axolotl",
    "slurm": "llamafactory",
}
"""Whose step is estimated, and whose file is started."""


@cache
def answer_of(trainer: Trainer, method: Method) -> Advice:
    return advise("llama-3.2-1b", CARD, 3000, method=method, trainer=trainer)


def written(target: Target, method: Method, folder: Path) -> TrainingFile:
    answer = answer_of(TRAINER[target], method)
    file = training_file(answer, answer.candidates[0], target)
    for name, text in (*file.beside, (file.name, file.text)):
        (folder / name).write_text(text)
    return file


def test_these_are_all_targets() -> None:
    assert set(TRAINER) == set(TARGETS) - {"auto"} == set(PARSERS)
    assert len(TRAINER) == 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", list(TRAINER))
def test_it_is_read_back_as_the_same_estimate(
    target: Target, method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(target, method, tmp_path)
    engines = [file.name] if target == "accelerate" else []
    name = file.beside[-1][0] if engines else file.name
    checked = check(name, None if target == "skypilot" else CARD, examples=3000, beside=engines)
    assert checked.unread == ()
    assert checked.advice is not None
    was, read = answer_of(TRAINER[target], method).candidates[0], checked.advice.candidates[0]
    assert (read.memory, read.time, read.verdict) == (was.memory, was.time, was.verdict)


@pytest.mark.parametrize("target", ["skypilot", "slurm"])
def test_so_is_a_job_on_several_machines(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    knobs = {"trainer": "axolotl", "method": "lora", "sharding": "fsdp2", "network_gbit": 100.0}
    answer = advise("llama-3.2-1b", CARD, 3000, gpus=4, nodes=2, **knobs)
    file = training_file(answer, answer.candidates[0], target)
    for name, text in (*file.beside, (file.name, file.text)):
        Path(name).write_text(text)
    checked = check(file.name, CARD, examples=3000, network_gbit=100.0)
    assert checked.advice is not None
    was, read = answer.candidates[0], checked.advice.candidates[0]
    assert (read.placement, read.memory, read.time) == (was.placement, was.memory, was.time)


def by_python(file: TrainingFile) -> None:
    compile(file.text, file.name, "exec")


def by_bash(file: TrainingFile) -> None:
    subprocess.run(["bash", "-n", file.name], check=True)


def by_trl(file: TrainingFile) -> None:
    trl = pytest.importorskip("trl")
    Path(file.name).write_text(f"{file.text}use_cpu: true\n")
    parser = trl.TrlParser((trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig))
    parser.parse_args_and_config(["--config", file.name])


def by_axolotl(file: TrainingFile) -> None:
    config = pytest.importorskip("axolotl.utils.schemas.config").AxolotlInputConfig
    values = yaml_tree(file.text, file.name).values
    assert set(values) <= set(config.model_fields)  # it drops others in silence
    config(**values)


def by_llamafactory(file: TrainingFile) -> None:
    read = pytest.importorskip("llamafactory.hparams").get_train_args
    read(yaml_tree(file.text, file.name).values | {"use_cpu": True})


def by_torchtune(file: TrainingFile) -> None:
    config = pytest.importorskip("torchtune.config")
    config.validate(pytest.importorskip("omegaconf").OmegaConf.load(file.name))


def by_swift(file: TrainingFile) -> None:
    known = pytest.importorskip("swift.arguments").SftArguments.__dataclass_fields__
    assert set(yaml_tree(file.text, file.name).values) <= set(known)


def by_accelerate(file: TrainingFile) -> None:
    read = pytest.importorskip("accelerate.commands.config.config_args").load_config_from_file
    assert read(file.name).num_processes == 1


def by_sky(file: TrainingFile) -> None:
    Path("train.jsonl").write_text("{}\n")
    assert pytest.importorskip("sky").Task.from_yaml(file.name).num_nodes == 1


PARSERS: dict[Target, Callable[[TrainingFile], None]] = {
    "python": by_python,
    "trl": by_trl,
    "axolotl": by_axolotl,
    "llamafactory": by_llamafactory,
    "unsloth": by_python,
    "torchtune": by_torchtune,
    "ms-swift": by_swift,
    "accelerate": by_accelerate,
    "skypilot": by_sky,
    "slurm": by_bash,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", list(TRAINER))
def test_its_own_parser_takes_it(
    target: Target, method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")  # LLaMA-Factory's, of the libraries beside it
    PARSERS[target](written(target, method, tmp_path))


@pytest.mark.parametrize("target", STARTERS)
def test_what_starts_a_file_has_it_beside_it(target: Target, tmp_path: Path) -> None:
    file = written(target, "lora", tmp_path)
    assert file.beside[-1][0] in ("train.py", "train.yaml")
