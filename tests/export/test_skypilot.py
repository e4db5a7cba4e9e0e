"""SkyPilot's task: what it rents, what it copies, and what its machines run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from advisor.answer import DataFile, GpuChoice
from advisor.catalog import all_gpus
from advisor.configs.tree import yaml_tree
from advisor.errors import InputError
from advisor.export.run import TrainingFile
from advisor.export.skypilot import NAME, NAMES, disk_gb, wrap
from advisor.export.training_file import export_of
from advisor.specs import Method, Placement
from tests.export.spread import run_of, saved

ONE, FAR = Placement(), Placement(gpus=16, nodes=2, sharding="fsdp2", network_gbit=100.0)
TASK = {"name", "resources", "num_nodes", "file_mounts", "envs", "setup", "run"}
RESOURCES = {"accelerators", "disk_size"}
"""Of the keys that skypilot 0.14.1's sky/utils/schemas.py knows, those that are written."""


def choice(*cards: str, asked: str = "", gpus: int = 1) -> GpuChoice:
    cards = cards or ("NVIDIA GeForce RTX 4090",)
    size = 24 * 2**30
    return GpuChoice(asked=asked or cards[0], cards=cards, memory_bytes=size, bf16=True, gpus=gpus, sharding="none")


def task_of(at: Placement = ONE, trainer: str = "trl", gpu: GpuChoice | None = None, **run: Any) -> TrainingFile:
    export, job = export_of(trainer), run_of(trainer, at)._replace(**run)
    assert export is not None
    return wrap(job, export.write(job), gpu or choice(gpus=at.gpus))


def values_of(file: TrainingFile) -> dict[str, Any]:
    return yaml_tree(file.text, file.name).values


def test_it_has_keys_that_skypilot_knows() -> None:
    for at in (ONE, FAR):
        values = values_of(task_of(at))
        assert set(values) == TASK
        assert set(values["resources"]) == RESOURCES
        assert (values["num_nodes"], values["resources"]["accelerators"]) == (
            at.nodes,
            {"RTX4090": at.gpus // at.nodes},
        )


@pytest.mark.parametrize("at", [ONE, FAR], ids=["one", "far"])
def test_skypilot_takes_it(at: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sky = pytest.importorskip("sky")
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("{}\n")
    gpu = choice("NVIDIA A100-SXM4-80GB", gpus=at.gpus)
    saved(task_of(at, gpu=gpu), tmp_path)
    task = sky.Task.from_yaml(NAME)
    assert task.num_nodes == at.nodes
    assert {name for one in task.resources for name in one.accelerators} == {"A100-80GB", "A100-80GB-SXM"}
    Path(NAME).write_text(Path(NAME).read_text().replace("num_nodes:", "num_nods:"))
    with pytest.raises(Exception, match="num_nodes"):
        sky.Task.from_yaml(NAME)


def test_names_are_those_of_skypilot() -> None:
    known = set(pytest.importorskip("sky.utils.gpu_names").CANONICAL_GPU_NAMES)
    rented = pytest.importorskip("sky.provision.runpod.utils").GPU_NAME_MAP
    assert {name for names in NAMES.values() for name in names} <= known | set(rented) | {"A6000"}
    for card, names in NAMES.items():
        for name in names:
            assert rented.get(name, card) in (card, "AMD Instinct MI300X OAM", "Tesla V100-SXM2-16GB") or name in known


def test_each_card_is_one_of_ours() -> None:
    assert set(NAMES) <= {one.name for one in all_gpus()}
    assert len(NAMES) > 40


def test_any_card_of_a_size_is_taken_and_only_those() -> None:
    cards = ("NVIDIA L4", "NVIDIA GeForce RTX 5090 Laptop GPU", "NVIDIA A10G")
    assert values_of(task_of(gpu=choice(*cards, asked="24GB")))["resources"]["accelerators"] == {"L4": 1, "A10G": 1}
    unnamed = choice("a card with 23 GB", asked="22.5GB", gpus=2)
    text = task_of(Placement(gpus=2), gpu=unnamed).text
    assert (
        'accelerators: "NVIDIA:23GB+:2"  # any card of this size or a larger one, which must compute in bf16\n' in text
    )


def test_a_card_that_nobody_rents_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^SkyPilot has no name for NVIDIA GeForce RTX 4070 Laptop GPU: ask for a size"
    ):
        task_of(gpu=choice("NVIDIA GeForce RTX 4070 Laptop GPU"))


@pytest.mark.parametrize("trainer", ["trl", "llamafactory", "transformers", "ms-swift", "axolotl"])
def test_everything_that_is_read_is_copied(trainer: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    at = Placement(gpus=2, sharding="zero2")
    file = task_of(at, trainer, data=DataFile(path="data/rows.jsonl"), model_id=str(model))
    mounts = values_of(file)["file_mounts"]
    assert {f"~/job/{name}": name for name, _ in file.beside}.items() <= mounts.items()
    assert (mounts["~/job/data/rows.jsonl"], mounts[str(model)]) == ("data/rows.jsonl", str(model))
    assert file.beside[-1][0] in ("train.py", "train.yaml")
    assert values_of(file)["setup"].startswith("pip install ")
    assert "~/job/maker/small" not in mounts


def test_machines_meet_at_the_first(tmp_path: Path) -> None:
    script = values_of(task_of(FAR, "transformers"))["run"]
    (tmp_path / "torchrun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "accelerate").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    for name in ("torchrun", "accelerate"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job").mkdir()
    ips = "10.0.0.7\n10.0.0.8"
    here = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "SKYPILOT_NODE_IPS": ips}
    done = subprocess.run(["bash", "-euc", script], env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[words.index("--main_process_ip") + 1] == "10.0.0.7"
    assert "MASTER_ADDR" not in values_of(task_of(ONE))["run"]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_disk_grows_with_what_is_stored(method: Method) -> None:
    small = run_of("trl", ONE, method)
    large = small._replace(model=small.model.model_copy(update={"num_hidden_layers": 220}))
    assert 100 < disk_gb(small) < disk_gb(large)
    assert disk_gb(run_of("trl", ONE, "full")) > disk_gb(run_of("trl", ONE, "lora"))
