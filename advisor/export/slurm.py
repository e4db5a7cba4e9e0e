"""A batch script for Slurm that starts the trainer's file: one task a machine, which starts a process for each card."""

from __future__ import annotations

import re

from advisor.export.launch import FIRST
from advisor.export.run import Run, TrainingFile

NAME = "train.sbatch"
PORT = "$MASTER_PORT"

_MEETING = f"""
# where the machines meet: the first of them, on a port that another job is not likely to have
read -r {FIRST[1:]} < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
{PORT[1:]}=$((10000 + SLURM_JOB_ID % 20000))
"""


def wrap(run: Run, file: TrainingFile) -> TrainingFile:
    """The script, with `file` and what it needs beside it."""
    at, command = run.placement, f"sbatch {NAME}"
    started = f"env {file.command}" if re.match(r"\w+=", file.command) else file.command
    text = f"""#!/bin/bash
#SBATCH --job-name=train
#SBATCH --nodes={at.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={run.gpus // at.nodes}
#SBATCH --output=%x-%j.log
# add above this line what your cluster asks for: --partition, --account, --time, --cpus-per-task
# run: {command}   in this folder, which every machine of the job must see
set -euo pipefail
{_MEETING if at.nodes > 1 else ""}
srun --kill-on-bad-exit=1 ${{SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}} \\
    {started}
"""
    return TrainingFile(NAME, text, command, (*file.beside, (file.name, file.text)))
