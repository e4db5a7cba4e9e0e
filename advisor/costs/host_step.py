"""Seconds of an optimizer's step on the host's processors, which is bound by its memory traffic.

    likely   one thread a process: what torchrun and accelerate's launcher set (OMP_NUM_THREADS; PyTorch 2.13,
             distributed/run.py, config_from_args; accelerate 1.15, commands/launch.py, num_cpu_threads_per_process)
    least    all memory channels of a machine, shared by its processes

The machine is not known: the interval reaches from one to the other. Traffic as on the card: fused AdamW reads and
writes each tensor once, PyTorch's other optimizers run one operation after the other.
Ignores: processors of which several threads share a core, and memory of another socket.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.costs.optimizer import optimizer_work
from advisor.interval import Interval
from advisor.parameters.trained import Trained
from advisor.specs import Placement, Recipe

MACHINE_BYTES_PER_S = 500e9
"""Sixteen channels of DDR4-3200 have 410 GB/s, 24 of DDR5-4800 922 (JEDEC); programs reach some 0.7 of that."""
FUSED_BYTES_PER_S, OTHER_BYTES_PER_S = (4e9, 10e9), (2e9, 3e9)
"""Of one core, the least and the likely: on an AMD EPYC (Zen 5) PyTorch 2.13's fused AdamW moves 15.7 GB/s in fp32 and
5.4 in bf16, the one of single operations 4.3; cores of 2019 have 0.6 of that (costs/device.py)."""
FUSED = ("adamw",)


def host_optimizer_seconds(updated: Sequence[Trained], recipe: Recipe, placement: Placement) -> Interval:
    """Of a step, clipping included, with every card's process at work on what it keeps of the tensors."""
    if not updated:
        return Interval.exact(0.0)
    moved = optimizer_work(updated, recipe.optimizer).moved_bytes
    least, likely = FUSED_BYTES_PER_S if recipe.optimizer in FUSED else OTHER_BYTES_PER_S
    most = max(likely, MACHINE_BYTES_PER_S / placement.node_gpus)
    return Interval(moved / most, moved / likely, moved / least)
