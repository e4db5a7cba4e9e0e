"""One question has one answer: every row of `advise` is what `estimate` says of its recipe."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from advisor import AdvisorError, Estimate, advise, estimate, find_gpus
from advisor.answer import Advice, Candidate
from advisor.specs import METHODS, GpuSpec
from tests.every import times

MODELS = ("smollm2-135m", "pythia-70m", "llama-3.2-1b", "gemma-2-2b", "qwen2.5-7b", "olmoe-1b-7b")
CARDS = ("rtx4090", "a100-40gb", "h100-sxm", "t4", "rtx3060")
SIZES = ("8GB", "24GB", "80GB")

questions = st.fixed_dictionaries(
    {
        "model": st.sampled_from(MODELS),
        "examples": st.sampled_from((1, 100, 20_001, 500_000)),
        "gpus": st.sampled_from((1, 2, 4, 8)),
        "method": st.sampled_from(("all", *METHODS)),
    },
    optional={
        "sharding": st.sampled_from(("none", "ddp", "fsdp2")),
        "epochs": st.sampled_from((0.5, 2.5)),
        "rank": st.sampled_from((1, 8, 256)),
        "dropout": st.sampled_from((0.0, 0.1)),
        "base_dtype": st.sampled_from(("bfloat16", "float32")),
        "quant": st.sampled_from(("nf4", "int8")),
        "optimizer": st.sampled_from(("adamw_8bit", "paged_adamw", "adafactor", "sgd")),
        "gradient_checkpointing": st.booleans(),
        "loss": st.sampled_from(("full", "chunked")),
        "micro_batch": st.sampled_from((1, 3)),
        "batch_size": st.sampled_from((8, 24)),
        "seq_len": st.sampled_from((128, 1000)),
        "packing": st.booleans(),
        "priority": st.sampled_from(("quality", "speed", "memory")),
        "trainer": st.sampled_from(("trl", "axolotl", "litgpt")),
    },
)


def answered(gpu: str, question: dict[str, Any]) -> Advice:
    """The answer; a question that contradicts itself is drawn again."""
    try:
        return advise(gpu=gpu, **question)
    except AdvisorError:
        reject()


def cards_of(answer: Advice) -> list[GpuSpec]:
    """The cards that the answer names, the smallest first."""
    found = [card for card in find_gpus(answer.gpu.asked) if card.name in answer.gpu.cards]
    return sorted(found, key=lambda card: card.memory_bytes)


def estimated(answer: Advice, row: Candidate, card: GpuSpec) -> Estimate:
    """What `estimate` says of the row's recipe for the answer's job."""
    return estimate(answer.model, row.recipe, answer.workload, card, row.placement)


@settings(max_examples=times(12))
@given(card=st.sampled_from(CARDS), question=questions)
def test_rows_for_a_card_are_what_estimate_says(card: str, question: dict[str, Any]) -> None:
    answer = answered(card, question)
    (gpu,) = cards_of(answer)
    for row in answer.candidates:
        found = estimated(answer, row, gpu)
        assert row.memory == found.memory
        assert row.trainable_parameters == found.trainable_parameters
        assert row.time is not None
        assert found.time is not None
        assert row.time.total_s.likely == pytest.approx(found.time.total_s.likely, abs=1e-6, rel=0)
        assert row.time == found.time


@settings(max_examples=times(8))
@given(size=st.sampled_from(SIZES), question=questions)
def test_rows_for_a_size_span_what_estimate_says_of_its_cards(size: str, question: dict[str, Any]) -> None:
    answer = answered(size, question)
    cards = cards_of(answer)
    for row in answer.candidates:
        found = estimated(answer, row, cards[0])
        assert row.memory == found.memory
        if row.verdict == "does_not_fit":
            assert row.time == found.time
            continue
        times = {card.name: time.total_s for card in cards if (time := estimated(answer, row, card).time) is not None}
        fastest, slowest = times[row.fastest_card], times[row.slowest_card]
        assert row.time is not None
        total = row.time.total_s
        assert total.likely == pytest.approx((fastest.likely * slowest.likely) ** 0.5)
        assert min(time.low for time in times.values()) <= total.low <= fastest.low
        assert slowest.high <= total.high <= max(time.high for time in times.values())


@settings(max_examples=times(30))
@given(question=questions)
def test_a_batch_is_shared_out_over_the_cards(question: dict[str, Any]) -> None:
    answer = answered("rtx4090", question | {"model": "pythia-70m"})
    for row in answer.candidates:
        per_card = row.recipe.micro_batch * row.recipe.gradient_accumulation
        assert answer.workload.batch_size == per_card * answer.gpu.gpus
