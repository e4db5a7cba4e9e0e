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
    {"model": "llama-3.2-3b", "gpu": "rtx3060", "trainer": "trl", "method": "lora", "gpus": 2, "sharding": "ddp"},
    {"model": "qwen3-14b", "gpu": "a10g", "dropout": 0.1, "optimizer": "adamw", "gradient_checkpointing": False},
    {"model": "llama-8b", "gpu": "rtx4060", "trainer": "llamafactory", "method": "qlora", "seq_len": 4096},
    {"model": "olmoe-1b-7b", "gpu": "rtx4060", "method": "qlora"},
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
        assert change.plan.verdict == "fits" or change.plan.evidence.unknown


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
    named = [change for change in changes(answer) if change.knobs and not change.text.startswith("Leave")]
    savings = [change for change in named if change.knobs[0] not in ("trainer", "stack")]  # which are other code
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


def flagged(model: str, gpu: str, **knobs: Any) -> dict[str, Change]:
    """The changes of settings that an answer names, by their flags."""
    found = changes(advise(model, gpu, **knobs))
    return {" ".join(one.flags): one for one in found if not one.card and not one.model}


def test_another_trainer_that_fits_is_named_with_what_is_not_known_of_it() -> None:
    found = flagged("gpt-oss-20b", "rtx5000ada")["--trainer unsloth --method qlora"]
    assert found.plan is not None
    assert found.plan.memory.needed_bytes.high < 32e9
    assert "it likely fits; not known: what torch.compile keeps of this model's layers" in found.text
    assert "GiB of the host's memory" in found.text
    assert not found.changes_training


def test_another_trainer_comes_with_fewer_targets_only_where_it_must() -> None:
    found = flagged("qwen3-30b-a3b", "rtx4090")["--trainer unsloth --target-modules attention --method qlora"]
    assert found.changes_training
    assert "; changes the training." in found.text
    assert "--trainer unsloth --method qlora" in flagged("qwen3-30b-a3b", "a100-40gb")


def test_older_libraries_quantize_the_experts() -> None:
    (first, *_) = flagged("mixtral-8x7b", "a6000", method="qlora").values()
    assert first.flags == ("--stack transformers-4.57", "--gradient-checkpointing", "--micro-batch 1")
    assert not [one for one in flagged("mixtral-8x7b", "a6000", trainer="trl") if one.startswith("--stack")]


def test_a_combination_leaves_nothing_out_that_it_needs_not() -> None:
    (both,) = (one for one in flagged("llama-8b", "rtx4060").values() if " together: " in one.text)
    assert both.flags == ("--kernels liger", "--no-kbit-upcast", "--method qlora")
    assert "; needs liger-kernel; changes the training." in both.text


def test_what_surely_fits_is_named_where_the_plan_only_just_does() -> None:
    question: dict[str, Any] = {"model": "yi-34b", "gpu": "24GB", "trainer": "ms-swift"}
    answer = advise(**question)
    assert answer.recommendation is not None
    assert answer.candidate(answer.recommendation.method).verdict == "tight"
    kernels, trainer = (change.flags for change in answer.alternatives)
    assert (kernels, trainer) == (("--kernels liger", "--method qlora"), ("--trainer unsloth", "--method qlora"))
    for change in answer.alternatives:
        check_true(question, change)
        assert change.plan is not None
        assert change.plan.verdict == "fits"
    assert advise("llama-8b", "24GB").alternatives == ()
