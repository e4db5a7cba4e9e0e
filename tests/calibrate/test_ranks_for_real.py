"""`calibrate --gpus 2` with the launcher itself: two processes, gloo, real training of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.calibrate.test_burst_for_real import typed

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_two_ranks_need_what_the_formula_says(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    spread = ("--gpus", "2", "--sharding", "fsdp2", "--batch-size", "4")
    process = typed(tmp_path, "--method", "lora", "--steps", "1", "--gradient-checkpointing", "--json", *spread)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    (one,) = map(json.loads, out.splitlines())
    assert (one["placement"]["gpus"], one["placement"]["sharding"]) == (2, "fsdp2")
    predicted, measured = one["predicted"], one["measured"]
    for term in ("static_bytes", "base_weights_bytes", "adapters_bytes", "optimizer_states_bytes", "buckets_bytes"):
        assert predicted[term] == measured[term], term
    for term in ("forward_bytes", "peak_allocated_bytes"):
        assert predicted[term] == pytest.approx(measured[term], rel=0.01), term
    assert one["burst"]["run"]["rank_peak_bytes"] == [measured["peak_allocated_bytes"]] * 2
