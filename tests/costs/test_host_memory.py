"""Memory of a machine whose cards keep states there, beside what was published."""

from __future__ import annotations

import pytest

from advisor import find_model
from advisor.catalog.gpus import find_gpus
from advisor.costs.estimation import estimate
from advisor.costs.host_memory import machine_bytes
from advisor.interval import Interval
from advisor.specs import Placement, Recipe, Workload
from advisor.units import GIB

LLAMA = find_model("llama-3.1-8b")


def taken(model: str, gpus: int, sharding: str, method: str = "qlora", offload: str = "parameters") -> Interval:
    quant = "nf4" if method == "qlora" else "none"
    recipe = Recipe.model_validate({"method": method, "quant": quant, "autocast": True, "kbit_upcast": False})
    placement = Placement.model_validate({"gpus": gpus, "sharding": sharding, "offload": offload})
    work = Workload(examples=1, seq_len=512, mean_seq_len=512)
    found = estimate(find_model(model), recipe, work, find_gpus("3090")[0], placement).memory.machine_bytes
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "gpus", "measured"),
    [
        ("llama-2-70b", 2, 107),  # huggingface/peft, docs/source/accelerate/fsdp.md
        ("llama-3-70b", 4, 127),  # philschmid.de/fsdp-qlora-llama3
    ],
)
def test_offloaded_by_fsdp1_takes_what_was_measured(model: str, gpus: int, measured: float) -> None:
    found = taken(model, gpus, "fsdp1")
    assert found.low <= measured * GIB <= found.high
    assert found.likely == pytest.approx(measured * GIB, rel=0.25)


def test_fsdp2_keeps_no_gradients_of_frozen_weights() -> None:
    assert taken("llama-2-70b", 2, "fsdp2").likely < 0.7 * taken("llama-2-70b", 2, "fsdp1").likely


def test_each_process_loads_the_model_where_none_does_for_the_others() -> None:
    recipe = Recipe(method="full")
    ddp, fsdp2 = (machine_bytes(LLAMA, recipe, Placement(gpus=8, sharding=s), 0) for s in ("ddp", "fsdp2"))
    weights = 2 * 8.03e9
    assert ddp.likely - fsdp2.likely == pytest.approx(7 * weights, rel=1e-3)
    assert ddp.high == fsdp2.high
    nodes = machine_bytes(LLAMA, recipe, Placement(gpus=16, nodes=2, sharding="ddp", network_gbit=400), 0)
    assert nodes == ddp
