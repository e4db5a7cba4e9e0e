"""A rank of FSDP against the real step on a fake process group: accelerate's own preparation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch

from advisor import find_model
from advisor.costs.rank_memory import predict_rank_memory
from advisor.specs import METHODS, Method, Placement, Recipe
from calibrate.options import config_of
from calibrate.worker.sharded import fake_group, rank_step
from tests.decoders import tiny

NAME, LAYERS, RANKS = "smollm2-135m", 3, 3  # 576 rows are not a multiple of it in every dtype's blocks


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    with fake_group(RANKS):
        yield


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("checkpointing", "accumulation", "reshard"), [(True, 1, True), (False, 2, False)])
def test_what_a_rank_holds_is_what_the_step_allocates(
    method: Method, checkpointing: bool, accumulation: int, reshard: bool
) -> None:
    m = find_model(NAME).model_copy(update={"num_hidden_layers": LAYERS})
    recipe = Recipe(
        method=method,
        rank=16,
        target_modules=("all-linear",),
        gradient_checkpointing=checkpointing,
        gradient_accumulation=accumulation,
        autocast=True,
        quant="nf4" if method in ("qlora", "qdora") else "none",
        optimizer="adamw_foreach",
    )
    placement = Placement(gpus=RANKS, sharding="fsdp2", reshard=reshard)
    step = rank_step({**config_of(NAME), "num_hidden_layers": LAYERS}, recipe, placement, 1, 128)
    found = predict_rank_memory(m, recipe, placement, 1, 128, "cpu")
    static = sum(found.static_blocks.values())
    assert abs(static - step.static_bytes) <= 8192
    assert found.phase_peaks["forward"] - static == pytest.approx(step.forward_bytes, rel=5e-3)
    assert found.phase_peaks["backward"] - static == pytest.approx(step.backward_bytes, rel=1e-3)


@pytest.mark.parametrize(
    ("method", "checkpointing", "accumulation", "at"),
    [
        ("full", True, 1, {"prefetch": True}),
        ("full", False, 2, {"reshard": False}),
        ("lora", True, 1, {}),
        ("qlora", False, 2, {}),
    ],
)
def test_what_a_rank_of_fsdp1_holds(
    method: Method, checkpointing: bool, accumulation: int, at: dict[str, bool]
) -> None:
    m = tiny.spec("llama", 2)
    changes = {"autocast": True, "base_dtype": "bfloat16", "adapter_dtype": "float32", "kbit_upcast": False}
    changes |= {"gradient_checkpointing": checkpointing, "gradient_accumulation": accumulation}
    recipe = tiny.recipe(m, method, **changes)
    placement = Placement(gpus=RANKS, sharding="fsdp1", **at)
    with torch.backends.mkldnn.flags(enabled=False):  # whose products take scratch memory
        step = rank_step(tiny.config("llama", 2), recipe, placement, 2, 100)
    found = predict_rank_memory(m, recipe, placement, 2, 100, "cpu")
    static = sum(found.static_blocks.values())
    assert abs(static - step.static_bytes) <= 8192
    # beyond the formula: the CPU's random state for each checkpoint
    assert found.phase_peaks["forward"] - static == pytest.approx(step.forward_bytes, rel=1e-2)
    assert found.phase_peaks["backward"] - static == pytest.approx(step.backward_bytes, rel=1e-2)
