"""A file that was written is read back as the run that it was written for: the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.advice.check import check
from advisor.export import Target
from advisor.export.training_file import training_file
from advisor.specs import METHODS

KNOBS: dict[Target, list[dict[str, Any]]] = {
    "axolotl": [
        {"packing": True, "micro_batch": 2, "kernels": "liger"},
        {"trained_layers": 3, "gradient_checkpointing": False, "padding": "max_length"},
        {"optimizer": "adamw_8bit", "offload": "activations"},
    ],
    "llamafactory": [
        {"packing": True, "micro_batch": 2, "kernels": "liger"},
        {"gradient_checkpointing": False, "rank": 64, "attention": "flash"},
        {"optimizer": "paged_adamw_8bit", "reentrant": False},
    ],
    "trl": [
        {"packing": True, "micro_batch": 2, "kernels": "liger_norm,liger_rope,liger_mlp"},
        {"gradient_checkpointing": False, "rank": 64, "attention": "eager"},
        {"optimizer": "adamw_8bit", "offload": "activations"},
    ],
}


@pytest.mark.parametrize("target", list(KNOBS))
@pytest.mark.parametrize("method", METHODS)
def test_reading_back_gives_the_same_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, method: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for knobs in KNOBS[target]:
        knobs = {**knobs} if method != "full" else {name: value for name, value in knobs.items() if name != "rank"}
        advice = advise("llama-3.2-1b", "a100-80gb", 3000, method=method, trainer=target, **knobs)
        written = training_file(advice, advice.candidates[0], target)
        Path(written.name).write_text(written.text)
        checked = check(written.name, "a100-80gb", examples=3000)
        assert checked.unread == ()
        assert checked.advice is not None
        was, read = advice.candidates[0], checked.advice.candidates[0]
        assert read.memory == was.memory
        assert read.time == was.time
