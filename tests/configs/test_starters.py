"""Slurm's scripts and SkyPilot's tasks lead to the file that they start."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.configs.reading import read_config
from advisor.configs.starters import slurm_starter
from advisor.errors import BadConfig

TRL = "model_name_or_path: meta-llama/Llama-3.2-1B\ndatasets: [{path: json, data_files: rows.jsonl}]\nuse_peft: true\n"
SKY = "resources:\n  accelerators: {wanted}\n{more}run: |\n  cd ~/job\n  trl sft --config train.yaml\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("train.yaml").write_text(TRL)
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "more", "card", "gpus", "nodes"),
    [
        ("RTX4090:2", "", "NVIDIA GeForce RTX 4090", 2, None),
        ("{A100-80GB: 8, A100-80GB-SXM: 8}", "num_nodes: 2\n", "NVIDIA A100-SXM4-80GB", 16, 2),
        ("{L4: 1, A10G: 1}", "", "24GB", None, None),
        ("[L4, A100-80GB]", "", "", None, None),
        ("NVIDIA:24GB+:4", "", "24GB", 4, None),
        ("24GB+", "", "24GB", None, None),
        ("MyCard:3", "", "MyCard", 3, None),
        ("", "num_nodes: many\n", "", None, None),
    ],
)
def test_a_task_names_the_card_and_how_many(
    wanted: str, more: str, card: str, gpus: int | None, nodes: int | None
) -> None:
    Path("train.sky.yaml").write_text(SKY.format(wanted=wanted, more=more))
    config = read_config("train.sky.yaml")
    assert (config.path, config.found.format, config.found.card) == ("train.yaml", "TRL YAML", card)
    assert (config.found.knobs.get("gpus"), config.found.knobs.get("nodes")) == (gpus, nodes)
    assert any(one.key == "resources.accelerators" for one in config.found.uses) is bool(wanted)


@pytest.mark.parametrize(
    ("head", "gpus", "nodes"),
    [
        ("#SBATCH --nodes=2\n#SBATCH --gpus-per-node=8\n", 16, 2),
        ("#SBATCH -N 3\n#SBATCH --gres=gpu:a100:4\n", 12, 3),
        ("#SBATCH --gpus-per-node=h100:1\n", None, None),
        ("", None, None),
    ],
)
def test_a_script_names_how_many(head: str, gpus: int | None, nodes: int | None) -> None:
    Path("job.sbatch").write_text(f"#!/bin/bash\n{head}# see other.yaml\nsrun trl sft --config train.yaml\n")
    config = read_config("job.sbatch")
    assert config.path == "train.yaml"
    assert (config.found.knobs.get("gpus"), config.found.knobs.get("nodes")) == (gpus, nodes)


def test_what_accelerate_says_is_read_beside_it() -> None:
    Path("accelerate.yaml").write_text("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\nnum_processes: 4\n")
    command = "accelerate launch --config_file accelerate.yaml train.py"
    Path("train.py").write_text("model = AutoModelForCausalLM.from_pretrained('gpt2')\nTrainer(model=model)\n")
    Path("job.sbatch").write_text(f"#SBATCH --gpus-per-node=4\nsrun {command}\n")
    found = read_config("job.sbatch").found
    assert (found.format, found.knobs["sharding"], found.knobs["gpus"]) == ("transformers script", "fsdp2", 4)


def test_a_starter_of_nothing_that_is_here_is_told_so() -> None:
    Path("job.sbatch").write_text("srun trl sft --config elsewhere.yaml\n")
    assert slurm_starter("job.sbatch", Path("job.sbatch").read_text()) is None
    Path("accelerate.yaml").write_text("distributed_type: MULTI_GPU\n")
    Path("job.sbatch").write_text("srun accelerate launch --config_file accelerate.yaml elsewhere.py\n")
    with pytest.raises(BadConfig, match=r"^job\.sbatch: starts accelerate\.yaml, which says how cards share a job"):
        read_config("job.sbatch")
