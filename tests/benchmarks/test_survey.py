"""The survey: how a row becomes a question, and what is counted as lost."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.survey import Asked, asked, lines, question

ROW = {
    "tool": "ms-swift",
    "path": "examples/sft.sh",
    "model": "qwen2.5-7b",
    "catalogue_model": "",
    "method": "lora",
    "variants": "",
    "quant": "none",
    "seq": "2048",
    "mb": "2",
    "ga": "8",
    "gc": "on",
    "attention": "unset",
    "packing": "unset",
    "optimizer": "unset",
    "special_knobs": "",
    "modules_to_save": "",
    "target_modules": "",
    "rank": "16",
    "reason": "",
}


@pytest.mark.parametrize(
    ("changes", "knobs"),
    [
        ({}, {"method": "lora", "trainer": "ms-swift", "seq_len": 2048, "micro_batch": 2, "batch_size": 16}),
        ({"quant": "nf4", "variants": "dora"}, {"method": "qdora", "quant": "nf4"}),
        ({"optimizer": "torch.optim.AdamW(fused)"}, {"optimizer": "adamw"}),
        ({"gc": "off", "packing": "on"}, {"gradient_checkpointing": False, "packing": True}),
        ({"special_knobs": "reentrant group_by_length"}, {"reentrant": True, "group_by_length": True}),
        ({"tool": "unsloth-notebook"}, {"trainer": "unsloth"}),
        ({"method": "oft", "quant": "awq"}, {"method": "qlora", "variant": "oft", "quant": "awq"}),
        ({"method": "qlora", "quant": "mxfp4"}, {"method": "lora"}),
        ({"quant": "hqq4"}, {"method": "qlora", "quant": "hqq", "quant_bits": 4}),
    ],
)
def test_settings_become_knobs(changes: dict[str, str], knobs: dict[str, Any]) -> None:
    found, lost = question({**ROW, **changes})
    assert {name: found[name] for name in knobs} == knobs
    assert lost == []


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"special_knobs": "compile"}, ["compile"]),
        ({"optimizer": "shampoo"}, ["optimizer shampoo"]),
        ({"variants": "rslora"}, []),
        ({"variants": "loftq", "special_knobs": "neftune"}, []),
        ({"variants": "lisa"}, ["method lisa"]),
        ({"tool": "lmflow"}, ["trainer lmflow"]),
        ({"tool": "open-instruct"}, []),
        ({"tool": "open-instruct", "path": "scripts/train/debug/oc_sft.sh"}, ["OLMo-core's own models"]),
        ({"attention": "xformers"}, ["attention xformers"]),
    ],
)
def test_what_has_no_word_is_lost(changes: dict[str, str], lost: list[str]) -> None:
    assert question({**ROW, **changes})[1] == lost


def test_a_trainer_that_offloads_decides_on_checkpointing() -> None:
    knobs, _ = question({**ROW, "tool": "axolotl", "special_knobs": "activation_offload"})
    assert knobs["offload"] == "activations"
    assert "gradient_checkpointing" not in knobs


def test_rows_are_answered_or_refused() -> None:
    good, bad = asked(ROW), asked({**ROW, "method": "grpo"})
    assert good.exact
    assert "unknown method 'grpo'" in bad.refused
    assert asked({**ROW, "model": ""}).refused == "the file names no model"
    table = list(lines([good, bad, Asked("trl", {}, ("compile",), "")]))
    assert table[-5].split() == ["all", "3", "67%", "33%"]
    assert table[-3:] == ["    1  compile", "refused:", table[-1]]
