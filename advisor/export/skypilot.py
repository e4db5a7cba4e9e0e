"""A task for SkyPilot that rents the cards and starts the trainer's file on each machine.

Only the files that the job reads are copied. Sources: skypilot 0.14.1, sky/utils/schemas.py, get_task_schema;
sky/resources.py, _parse_accelerators_from_str; sky/skylet/constants.py, the variables of a task.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from textwrap import indent

from advisor.answer import GpuChoice
from advisor.blocks import ITEM_BYTES
from advisor.errors import InputError
from advisor.export.launch import FIRST
from advisor.export.run import Run, TrainingFile
from advisor.parameters.modules import parameter_count

NAME = "train.sky.yaml"
FOLDER = "~/job"
"""Where the files stand on each machine."""
SYSTEM_BYTES = 100e9
"""Of a disk: the system's image, CUDA and PyTorch (our judgment)."""
KEPT = 2
"""Saved states of full fine-tuning that are on the disk at once: one is written before the one before it is deleted."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "NVIDIA A100-SXM4-80GB": ("A100-80GB", "A100-80GB-SXM"),
    "NVIDIA A100 80GB PCIe": ("A100-80GB",),
    "NVIDIA A100-SXM4-40GB": ("A100",),
    "NVIDIA H100 80GB HBM3": ("H100", "H100-SXM"),
    "NVIDIA H100 PCIe": ("H100",),
    "NVIDIA H100 NVL": ("H100-NVL",),
    "NVIDIA H200": ("H200", "H200-SXM"),
    "NVIDIA GH200 480GB": ("GH200",),
    "NVIDIA B200": ("B200",),
    "NVIDIA GB200": ("GB200",),
    "NVIDIA L4": ("L4",),
    "NVIDIA L40": ("L40",),
    "NVIDIA L40S": ("L40S",),
    "NVIDIA A10": ("A10",),
    "NVIDIA A10G": ("A10G",),
    "NVIDIA A16": ("A16",),
    "NVIDIA A30": ("A30",),
    "NVIDIA A40": ("A40",),
    "NVIDIA RTX A2000": ("RTXA2000",),
    "NVIDIA RTX A4000": ("RTXA4000",),
    "NVIDIA RTX A4500": ("RTXA4500",),
    "NVIDIA RTX A5000": ("RTXA5000",),
    "NVIDIA RTX A6000": ("RTXA6000", "A6000"),
    "NVIDIA RTX 2000 Ada Generation": ("RTX2000-Ada",),
    "NVIDIA RTX 4000 Ada Generation": ("RTX4000-Ada",),
    "NVIDIA RTX 4000 SFF Ada Generation": ("RTX4000-Ada-SFF",),
    "NVIDIA RTX 5000 Ada Generation": ("RTX5000-Ada",),
    "NVIDIA RTX 6000 Ada Generation": ("RTX6000-Ada",),
    "NVIDIA RTX PRO 4500 Blackwell": ("RTXPRO4500",),
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": ("RTXPRO6000",),
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": ("RTXPRO6000-WK",),
    "NVIDIA GeForce RTX 3070": ("RTX3070",),
    "NVIDIA GeForce RTX 3080": ("RTX3080",),
    "NVIDIA GeForce RTX 3080 Ti": ("RTX3080Ti",),
    "NVIDIA GeForce RTX 3090": ("RTX3090",),
    "NVIDIA GeForce RTX 3090 Ti": ("RTX3090Ti",),
    "NVIDIA GeForce RTX 4070 Ti": ("RTX4070Ti",),
    "NVIDIA GeForce RTX 4080": ("RTX4080",),
    "NVIDIA GeForce RTX 4080 SUPER": ("RTX4080SUPER",),
    "NVIDIA GeForce RTX 4090": ("RTX4090",),
    "NVIDIA GeForce RTX 5080": ("RTX5080",),
    "NVIDIA GeForce RTX 5090": ("RTX5090",),
    "Tesla T4": ("T4",),
    "Tesla P40": ("P40",),
    "Tesla P100-PCIE-16GB": ("P100",),
    "Tesla V100-SXM2-16GB": ("V100", "V100-16GB-SXM2"),
    "Tesla V100-SXM2-32GB": ("V100-32GB", "V100-32GB-SXM2"),
    "Tesla V100-PCIE-16GB": ("V100-16GB-PCIe",),
    "AMD Instinct MI300X": ("MI300X",),
}
"""What clouds' catalogs call a card. Sources: sky/utils/gpu_names.py; sky/provision/runpod/utils.py, GPU_NAME_MAP."""


def wrap(run: Run, file: TrainingFile, gpu: GpuChoice) -> TrainingFile:
    """The task, with `file` and what it needs beside it. Raises InputError for a card that SkyPilot does not know."""
    at, command = run.placement, f"sky launch -c train {NAME}"
    files = (*file.beside, (file.name, file.text))
    mounts = "".join(f"  {json.dumps(there)}: {json.dumps(here)}\n" for there, here in _mounts(run, files))
    text = f"""# pip install 'skypilot[aws]'   (or another cloud: sky check)
# run: {command}   in this folder; afterwards: rsync -a train:job/out . && sky down train
name: train
resources:
{indent(_cards(gpu, at.nodes), "  ")}  disk_size: {disk_gb(run)}  # GB: the model, what is saved, the system
num_nodes: {at.nodes}
file_mounts:
{mounts}envs:
  HF_TOKEN: ""  # of models that ask for one: --env HF_TOKEN
setup: |
  pip install {file.packages}
run: |
  cd {FOLDER}
{indent(_meeting(at.nodes), "  ")}  {file.command}
"""
    return TrainingFile(NAME, text, command, files)


def disk_gb(run: Run) -> int:
    """GB of a machine's disk: the checkpoint in 16 bits, the states that are saved, and the system.

    A state of full fine-tuning has the weights and two moments in fp32, at most. Ignores: the data set.
    """
    parameters = parameter_count(run.model)
    saved = 0 if run.recipe.has_adapters else KEPT * (ITEM_BYTES[run.recipe.base_dtype] + 2 * ITEM_BYTES["float32"])
    return math.ceil((SYSTEM_BYTES + parameters * (ITEM_BYTES["bfloat16"] + saved)) / 1e9)


def _cards(gpu: GpuChoice, nodes: int) -> str:
    """The cards of a machine: any of those that the answer is of; of a size that none of them has, by its memory."""
    number = gpu.gpus // nodes
    names = list(dict.fromkeys(name for card in gpu.cards for name in NAMES.get(card, ())))
    if names:
        return f"accelerators: {json.dumps(dict.fromkeys(names, number))}  # any of these\n"
    if gpu.asked.upper().endswith("GB") and gpu.asked[:-2].replace(".", "", 1).isdigit():
        size = math.ceil(float(gpu.asked[:-2]))
        needs = ", which must compute in bf16" if gpu.bf16 else ""
        return f'accelerators: "NVIDIA:{size}GB+:{number}"  # any card of this size or a larger one{needs}\n'
    raise InputError(
        f"SkyPilot has no name for {gpu.cards[0]}: ask for a size, for example --gpu {gpu.memory_bytes / 2**30:.0f}GB, "
        "or use --write auto"
    )


def _mounts(run: Run, files: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    """(there, here) of what a machine needs: a path stays what the trainer's file calls it, seen from the folder."""
    for name, _ in files:
        yield f"{FOLDER}/{name}", name
    for path in (run.data.path, run.source):
        if path == run.data.path or os.path.exists(path):
            yield path if os.path.isabs(path) else f"{FOLDER}/{os.path.normpath(path)}", path


def _meeting(nodes: int) -> str:
    """Where several machines meet: the first of them."""
    return "" if nodes == 1 else f'export {FIRST[1:]}=$(echo "$SKYPILOT_NODE_IPS" | head -n1)\n'
