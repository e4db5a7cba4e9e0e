"""A rank by formula against the traced one: accelerate's own preparation on fake tensors, tiny models, to the block."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from advisor.catalog.config_json import model_from_config
from advisor.costs.rank_memory import predict_rank_memory
from advisor.specs import Method, Placement, Recipe
from calibrate.worker.rank_trace import trace_rank
from tests.calibrate.made_up import TINY

TIED = TINY | {"tie_word_embeddings": True}
BLOCKS = 8 * 512
"""The tape's scalars, and the rounding of parts of a buffer that the engine takes together."""


@pytest.mark.parametrize(
    ("method", "placement", "config", "steps"),
    [
        ("full", Placement(gpus=2, sharding="fsdp2"), TINY, 1),
        ("full", Placement(gpus=2, sharding="fsdp2"), TIED, 2),
        ("full", Placement(gpus=4, nodes=2, sharding="hsdp", network_gbit=100), TINY, 1),
        ("qdora", Placement(gpus=3, sharding="fsdp2", reshard=False), TINY, 2),
        ("lora", Placement(gpus=100_000, sharding="ddp"), TINY, 2),
    ],
)
def test_each_phase_peaks_as_the_formula_says(
    method: Method, placement: Placement, config: dict[str, Any], steps: int
) -> None:
    quant = "nf4" if method == "qdora" else "none"
    recipe = Recipe(method=method, quant=quant, gradient_checkpointing=True, gradient_accumulation=steps)
    trace = trace_rank(config, recipe, placement, 1, 16)
    found = predict_rank_memory(model_from_config(config, "tiny", "tiny"), recipe, placement, 1, 16, "cpu")
    assert trace.static_bytes == sum(found.static_blocks.values())
    for phase, predicted in found.phase_peaks.items():
        traced = max(one.peak_bytes for one in trace.phases if one.phase == phase)
        assert abs(predicted - traced) <= BLOCKS, phase
