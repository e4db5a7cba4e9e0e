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
    "ms-swift": [
        {"packing": True, "micro_batch": 2, "attention": "flash", "kernels": "liger"},
        {"gradient_checkpointing": False, "rank": 64, "attention": "eager", "autocast": False},
        {"optimizer": "adamw_8bit", "reentrant": True},
    ],
    "torchtune": [
        {"packing": True, "gradient_checkpointing": False, "rank": 64, "base_dtype": "float32"},
        {"optimizer": "adamw_8bit", "offload": "activations", "micro_batch": 2},
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


@pytest.mark.parametrize(
    ("target", "knobs"),
    [
        ("axolotl", {"method": "qlora", "sharding": "fsdp2"}),
        ("llamafactory", {"method": "lora", "sharding": "zero2", "offload": "optimizer"}),
        ("trl", {"method": "lora", "sharding": "zero3"}),
        ("trl", {"method": "full", "sharding": "fsdp2", "reshard": False}),
        ("ms-swift", {"method": "full", "sharding": "fsdp1", "reshard": False}),
        ("ms-swift", {"method": "lora", "sharding": "ddp"}),
        ("torchtune", {"method": "qdora", "sharding": "fsdp2", "reshard": False}),
        ("torchtune", {"method": "full", "sharding": "fsdp2", "offload": "parameters", "optimizer": "adamw"}),
    ],
    ids=str,
)
def test_so_does_a_file_for_several_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, knobs: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    advice = advise("llama-3.2-1b", "a100-80gb", 3000, trainer=target, gpus=4, **knobs)
    written = training_file(advice, advice.candidates[0], target)
    for name, text in ((written.name, written.text), *written.beside):
        Path(name).write_text(text)
    beside = [name for name, _ in written.beside if name == "accelerate.yaml"]
    checked = check(written.name, "a100-80gb", examples=3000, gpus=4, beside=beside)
    assert checked.advice is not None
    was, read = advice.candidates[0], checked.advice.candidates[0]
    assert (read.sharding, read.memory, read.time) == (was.sharding, was.memory, was.time)
