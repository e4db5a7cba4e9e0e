"""What `advise --write` writes trains a model of a local folder: three steps on the CPU, as many bytes as the dry run.

Two methods a target, one with accelerate's launcher; all of them: EVERY_COMBINATION=1. Not run here: Axolotl,
LLaMA-Factory, ms-swift, Unsloth and torchtune, which need other versions of these libraries, or a card; their own
parsers take their files (`test_configs.py`).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from advisor.specs import METHODS, QUANTIZED_METHODS
from tests.every import EVERY_COMBINATION
from tests.export.runs import ran

pytestmark = pytest.mark.process

TARGETS = ("python", "trl", "accelerate")
CASES = [
    (target, method)
    for target in TARGETS
    for method in METHODS
    if EVERY_COMBINATION or method == "qdora" or (target != "accelerate" and method == "full")
]
ROWS = 6
PEAK_TOLERANCE = 0.01
STOPS = {"step": ("training_step", 2), "checkpoint": ("save_model", 1), "model": ("save_model", 2)}
"""Where Ctrl-C stops a run: in a step, in a checkpoint whose weights are there, or when the model has been written."""
STEPS_AGAIN = {"step": 3, "checkpoint": 3, "model": 0}
"""How many steps a run with --resume then makes."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, Any]]:
    """What each run left."""
    for name in ("trl", "bitsandbytes"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("steps")
    rows = folder / "rows.jsonl"
    rows.write_text((json.dumps({"text": "One, two, three. " * 12}) + "\n") * ROWS)
    both = {"model": str(folder / "model"), "data": str(rows)}
    jobs: dict[Any, Any] = {
        (target, method): {"target": target, "method": method, "folder": str(folder / f"{target}-{method}"), **both}
        for target, method in CASES
    }
    for name, stops in STOPS.items():
        jobs[name] = {"target": "python", "method": "lora", "folder": str(folder / name), "stops": stops, **both}
    return ran("tests.export.cpu_runs", jobs, folder)


@pytest.mark.parametrize(("target", "method"), CASES)
def test_three_steps_need_what_the_dry_run_says(runs: dict[Any, dict[str, Any]], target: str, method: str) -> None:
    done = runs[target, method]
    print(f"{target:10} {method:6} {done['peak_bytes']:>10,} {done['dry_peak_bytes']:>10,} bytes")
    assert (done["rows"], done["steps"], done["shape"]) == (ROWS, 3, [2, 64])
    assert done["losses_finite"][:2] == [True, True]
    apart = f"only measured: {done['measured_alone']}; only in the dry run: {done['dry_alone']}"
    assert done["peak_bytes"] == pytest.approx(done["dry_peak_bytes"], rel=PEAK_TOLERANCE), apart
    if target != "trl":
        assert done["losses_finite"][2]
        assert done["second_peak_bytes"] == done["peak_bytes"]


@pytest.mark.parametrize(("target", "method"), CASES)
def test_what_was_trained_is_saved(runs: dict[Any, dict[str, Any]], target: str, method: str) -> None:
    done = runs[target, method]
    file = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    assert {file, "tokenizer.json", "chat_template.jinja"} <= set(done["saved"])
    assert "unfinished" not in done["saved"]
    dtypes = {"float32"}
    if target == "trl" and method in QUANTIZED_METHODS:
        dtypes = {"bfloat16", "float32"} if method == "qdora" else {"bfloat16"}
    elif target != "trl" and method == "full":
        dtypes = {"bfloat16"}
    assert set(done["trained_dtypes"]) == dtypes
    assert set(done["saved_dtypes"]) == {{"bfloat16": "BF16", "float32": "F32"}[dtype] for dtype in dtypes}


@pytest.mark.parametrize("name", STOPS)
def test_a_stopped_run_leaves_nothing_that_looks_complete(runs: dict[Any, dict[str, Any]], name: str) -> None:
    done = runs[name]
    assert "adapter_model.safetensors" not in done["left"]
    assert done["steps_again"] == STEPS_AGAIN[name]
    assert "adapter_model.safetensors" in done["saved"]
    assert "unfinished" not in done["saved"]
