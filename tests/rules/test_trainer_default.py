"""A trainer's default that decides the verdict is named with the flag that changes it."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.advise import advise
from tests.fakes import MODEL, FakeCatalog, card, fake_estimate


def reasons(gib: float, **knobs: Any) -> list[str]:
    answer = advise(MODEL, card(gib), catalog=FakeCatalog(), estimator=fake_estimate, **{"examples": 3000, **knobs})
    assert answer.recommendation is not None
    return [f"{reason.code} {reason.text}" for reason in answer.recommendation.reasons]


def test_trl_loads_fp32() -> None:
    first = reasons(4.5, trainer="trl")[0]
    assert first.startswith("ADV001 QLoRA, because LoRA with an fp32 base needs ")
    assert "of 4.50; trl's default --base-dtype float32 decides that: with --base-dtype bfloat16 LoRA needs" in first
    assert first.endswith("), and fits.")


@pytest.mark.parametrize(
    ("gib", "knobs"),
    [
        (4.5, {"trainer": "trl", "base_dtype": "float32"}),  # asked for: the trainer did not decide
        (2.5, {"trainer": "trl"}),  # bf16 would not be enough
        (2.5, {"trainer": "axolotl"}),
    ],
)
def test_no_default_is_blamed(gib: float, knobs: dict[str, Any]) -> None:
    first = reasons(gib, **knobs)[0]
    assert first.startswith("ADV001 LoRA with a")
    assert "default" not in first


def test_checkpointing_that_a_trainer_leaves_off() -> None:
    text = reasons(4, trainer="litgpt", base_dtype="bfloat16")[0]
    assert "litgpt's default --no-gradient-checkpointing decides that: with --gradient-checkpointing" in text


def test_real_cards() -> None:
    answer = advise("llama-8b", "rtx4090", 3000, trainer="trl")
    assert answer.recommendation is not None
    assert answer.recommendation.method == "qlora"
    assert "trl's default --base-dtype float32 decides that" in answer.recommendation.reasons[0].text
    half = advise("llama-8b", "rtx4090", 3000, trainer="trl", base_dtype="bfloat16")
    assert half.recommendation is not None
    assert {half.candidate(method).verdict for method in ("lora", "dora")} == {"fits"}


def test_a_loss_that_takes_all_logits_at_once() -> None:
    answer = advise("gemma-2-9b", "rtx4090", 3000, seq_len=2048)
    assert answer.recommendation is not None
    first = answer.recommendation.reasons[0].text
    assert "transformers' default --loss full decides that: with --kernels liger LoRA needs" in first
