"""What starts a job on several cards, of one machine or of several.

On several machines the same line is run on each: torch's c10d rendezvous needs no ranks, only the name of one machine.
Sources: PyTorch 2.13, distributed/run.py; accelerate 1.15, commands/launch.py, and utils/launch.py,
prepare_multi_gpu_env.
"""

from __future__ import annotations

from advisor.export.run import Run

CONFIG = "accelerate.yaml"
"""accelerate's configuration file, beside the trainer's."""
FIRST = "$MASTER_ADDR"
"""The name of the machine where the others meet."""
JOB = "train"


def by_torchrun(run: Run, program: str) -> str:
    """torchrun starts `program` once for each card of a machine."""
    return f"torchrun {torchrun_flags(run)} {program}"


def torchrun_flags(run: Run) -> str:
    """How many processes, and where several machines meet; on one machine a port is looked for."""
    nodes = run.placement.nodes
    meeting = f"--nnodes {nodes} --rdzv-backend c10d --rdzv-id {JOB} --rdzv-endpoint {FIRST}:{run.port}"
    return f"--nproc-per-node {run.gpus // nodes} {'--standalone' if nodes == 1 else meeting}"


def by_accelerate(run: Run, program: str) -> str:
    """accelerate starts `program` once for each card, as its configuration file says."""
    return f"accelerate launch --config_file {CONFIG}{meeting_flags(run)} {program}"


def meeting_flags(run: Run) -> str:
    """Flags of accelerate, each after a space, for what its file cannot say: where several machines meet."""
    meeting = f" --rdzv_backend c10d --main_process_ip {FIRST} --main_process_port {run.port}"
    return "" if run.placement.nodes == 1 else meeting


def where(run: Run) -> str:
    """A comment line on where the command is run; '' for one machine."""
    nodes, name = run.placement.nodes, FIRST[1:]
    text = f"# on each of the {nodes:,} machines, with the same files; {name} names one of them\n"
    return "" if nodes == 1 else text
