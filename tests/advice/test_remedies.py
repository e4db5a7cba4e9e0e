"""What would fit: each remedy is tried by asking the question that it names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor import advise
from advisor.answer import Advice, Change
from tests.advice.reruns import check_true

HOPELESS = (
    {"model": "llama-70b", "gpu": "24GB"},
    {"model": "qwen2.5-32b", "gpu": "rtx4060", "examples": 3000},
    {"model": "llama-8b", "gpu": "rtx4060ti", "examples": 60_000, "seq_len": 8192, "mean_seq_len": 5000},
    {"model": "gemma-2-9b", "gpu": "t4", "examples": 500, "seq_len": 4096},
    {"model": "gpt-oss-20b", "gpu": "rtx3060", "examples": 500},
    {"model": "llama-8b", "gpu": "rtx4090", "method": "full"},
    {"model": "llama-8b", "gpu": "rtx4090", "micro_batch": 16, "seq_len": 4096},
    {"model": "llama-3.2-3b", "gpu": "rtx3060", "trainer": "trl", "method": "lora", "gpus": 2},
    {"model": "qwen3-14b", "gpu": "a10g", "dropout": 0.1, "optimizer": "adamw", "gradient_checkpointing": False},
)


def changes(answer: Advice) -> list[Change]:
    return [change for change in answer.alternatives if change.plan is not None]


@pytest.mark.parametrize("question", HOPELESS, ids=lambda one: f"{one['model']} on {one['gpu']}")
def test_a_remedy_is_what_the_changed_question_gets(question: dict[str, Any]) -> None:
    answer = advise(**question)
    assert answer.recommendation is None
    found = changes(answer)
    assert found
    for change in found:
        left = change.knobs[0] if change.text.startswith("Leave ") else None
        check_true({name: value for name, value in question.items() if name != left}, change)
        assert change.plan is not None
        assert change.plan.verdict == "fits"


@settings(max_examples=8)
@given(
    model=st.sampled_from(("llama-3.1-8b", "qwen3-32b", "gemma-3-27b", "phi-4", "llama-3.1-405b")),
    gpu=st.sampled_from(("rtx3060", "rtx4060", "t4", "rtx4090")),
    method=st.sampled_from(("full", "lora", "dora", "qlora")),
    seq_len=st.sampled_from((512, 4096)),
)
def test_a_combination_is_named_only_where_no_single_change_is_enough(
    model: str, gpu: str, method: str, seq_len: int
) -> None:
    answer = advise(model, gpu, method=method, seq_len=seq_len)
    savings = [change for change in changes(answer) if change.knobs and not change.text.startswith("Leave")]
    combined = [change for change in savings if len(change.knobs) > 1 and "seq_len" not in change.knobs]
    if combined:
        assert not [one for one in savings if len(one.knobs) == 1 and one.knobs[0] not in ("method", "seq_len")]
        assert len({len(change.knobs) for change in combined}) == 1


def named(model: str, gpu: str, **knobs: Any) -> list[str]:
    """The smaller models that an answer names."""
    return [change.model for change in changes(advise(model, gpu, **knobs)) if change.model]


def test_smaller_models_are_of_the_same_lineage_the_newest_first() -> None:
    assert named("llama-3.1-8b", "rtx3060", method="lora") == ["llama-3.2-3b"]
    assert named("qwen2.5-72b", "24GB") == ["qwen3-14b"]
    assert named("gpt-oss-20b", "8GB") == []


def test_cards_are_for_training() -> None:
    question: dict[str, Any] = {"model": "llama-8b", "gpu": "rtx3060", "method": "lora", "seq_len": 512}
    cards = [change.card for change in changes(advise(**question)) if change.card]
    assert cards
    assert "NVIDIA A16" not in cards
