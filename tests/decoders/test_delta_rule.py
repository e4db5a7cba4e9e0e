"""The gated delta rule over many chunks, most of which are not run: against the traced real step."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.costs.memory import predict_step_memory
from calibrate.worker.dryrun import trace_step
from tests.decoders.test_against_trace import check
from tests.decoders.tiny import config, recipe, spec


@pytest.mark.parametrize(
    ("name", "method", "shape", "knobs"),
    [
        ("qwen3_5", "lora", (2, 450), {"gradient_checkpointing": True}),
        ("qwen3_next-heads", "full", (2, 448), {"gradient_checkpointing": False, "autocast": False}),
        ("qwen3_5-heads", "qlora", (2, 128), {"gradient_checkpointing": False, "autocast": False}),
        ("olmo_hybrid", "lora", (2, 400), {"reentrant": True}),
    ],
)
def test_long_rows(name: str, method: Any, shape: tuple[int, int], knobs: dict[str, Any]) -> None:
    m = spec(name, 2)
    check(m, config(name, 2), recipe(m, method, **knobs), shape)


def test_where_a_layer_of_it_holds_the_peak() -> None:
    """A wide rule beside a small vocabulary: the peak is inside its backward."""
    m, chosen = spec("qwen3_5", 1), recipe(spec("qwen3_5", 1), "lora", gradient_checkpointing=True)
    wide = {"vocab_size": 64, "linear_num_value_heads": 16, "layer_types": ["linear_attention"]}
    traced = {**config("qwen3_5", 1), **wide}
    from advisor.catalog.config_json import model_from_config

    m = model_from_config(traced, "wide", "wide")
    trace = trace_step(traced, chosen, 2, 330, name_modules=False)
    found = predict_step_memory(m, chosen, 2, 330, "cpu")
    assert "gated delta rule" in found.peak_at
    assert found.peak_bytes == pytest.approx(trace.peak_bytes, rel=1e-4)
