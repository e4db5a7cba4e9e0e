"""Slurm's script: bash reads it, and what it starts where srun and scontrol are stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from advisor.export.slurm import NAME, PORT, wrap
from advisor.specs import Placement
from tests.export.spread import file_of, run_of, saved

FAR = Placement(gpus=16, nodes=2, network_gbit=100.0)
TOOLS = {
    "srun": 'printf "%s\\n" "$@"',
    "scontrol": 'test "$*" = "show hostnames node[7-8]" && printf "node7\\nnode8\\n"',
}


def started(trainer: str, at: Placement, folder: Path, **environment: str) -> list[str]:
    """What srun is handed."""
    run = run_of(trainer, at)._replace(port=PORT)
    from advisor.export.training_file import export_of

    export = export_of(trainer)
    assert export is not None
    saved(wrap(run, export.write(run)), folder)
    for name, body in TOOLS.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    here = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "20003"}
    done = subprocess.run(["bash", NAME], cwd=folder, env=here | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_machines_meet_at_the_first_on_a_port_of_the_jobs_own(tmp_path: Path) -> None:
    words = started("transformers", FAR, tmp_path, SLURM_CPUS_PER_TASK="12")
    assert words[:3] == ["--kill-on-bad-exit=1", "--cpus-per-task=12", "torchrun"]
    assert words[words.index("--rdzv-endpoint") + 1] == "node7:10003"
    assert words[-1] == "train.py"
    text = (tmp_path / NAME).read_text()
    for line in ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8"):
        assert f"#SBATCH {line}\n" in text


def test_what_a_launcher_reads_from_its_environment(tmp_path: Path) -> None:
    words = started("llamafactory", FAR, tmp_path)
    assert words[1:3] == ["env", "FORCE_TORCHRUN=1"]
    assert {"MASTER_ADDR=node7", "MASTER_PORT=10003"} <= set(words)
    assert words[-3:] == ["llamafactory-cli", "train", "train.yaml"]


@pytest.mark.parametrize(("gpus", "words"), [(1, ["python", "train.py"]), (2, ["torchrun"])])
def test_one_machine_meets_nobody(gpus: int, words: list[str], tmp_path: Path) -> None:
    assert started("transformers", Placement(gpus=gpus), tmp_path)[1 : 1 + len(words)] == words
    assert "scontrol" not in (tmp_path / NAME).read_text()


def test_everything_is_beside_it() -> None:
    at = Placement(gpus=2, sharding="zero2")
    file = wrap(run_of("transformers", at), file_of("transformers", at))
    assert {name for name, _ in file.beside} == {"train.py", "accelerate.yaml", "deepspeed.json"}
    assert file.command == "sbatch train.sbatch"
