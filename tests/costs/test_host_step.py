"""The optimizer's step on the host: between one thread a process and all memory channels."""

from __future__ import annotations

from advisor.costs.host_step import host_optimizer_seconds
from advisor.interval import Interval
from advisor.optimizers import Optimizer
from advisor.parameters.trained import Trained
from advisor.specs import Placement, Recipe

BILLION = [Trained(1_000_000, 1000, 1, "float32")]


def seconds(gpus: int, optimizer: Optimizer = "adamw") -> Interval:
    recipe = Recipe(method="full", optimizer=optimizer)
    return host_optimizer_seconds(BILLION, recipe, Placement(gpus=gpus, sharding="fsdp2", offload="parameters"))


def test_fused_adamw_is_bound_by_its_thread_and_a_machine_by_its_channels() -> None:
    """7 passes of 4 GB and clipping; 1.8 s a billion parameters on one core of an EPYC (Zen 5) without clipping."""
    eight = seconds(8)
    assert eight.low < 1.8 < eight.likely < eight.high
    assert seconds(2).low < eight.low
    assert seconds(8, "adamw_foreach").likely > 5 * eight.likely


def test_nothing_on_the_host_takes_no_time() -> None:
    assert host_optimizer_seconds([], Recipe(method="full"), Placement(gpus=2)) == Interval.exact(0.0)
