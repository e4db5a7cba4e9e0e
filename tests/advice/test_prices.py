"""The frontier and the prices: each is what the changed question gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from advisor import AdvisorError, advise
from advisor.advice.prices import MOST_PLANS
from advisor.answer import Advice, Change
from advisor.recipes import flags_of
from tests.advice.reruns import asked, check_true, flags_for
from tests.every import times

questions = st.fixed_dictionaries(
    {
        "model": st.sampled_from(("llama-3.2-1b", "qwen2.5-7b", "gemma-2-2b", "olmoe-1b-7b", "smollm2-135m")),
        "gpu": st.sampled_from(("rtx4090", "a100-40gb", "h100-sxm", "t4", "24GB")),
        "examples": st.sampled_from((100, 3_000, 60_000)),
    },
    optional={
        "method": st.sampled_from(("full", "lora", "dora", "qlora")),
        "gpus": st.just(2),
        "rank": st.sampled_from((4, 64)),
        "optimizer": st.sampled_from(("adamw_8bit", "sgd")),
        "batch_size": st.sampled_from((8, 48)),
        "seq_len": st.sampled_from((512, 2048)),
        "trainer": st.sampled_from(("trl", "axolotl")),
        "price_per_hour": st.just(2.0),
        "target_modules": st.sampled_from((("attention",), ("q_proj", "v_proj"))),
    },
)


def answered(question: dict[str, Any]) -> Advice:
    try:
        return advise(**question)
    except AdvisorError:
        reject()


@settings(max_examples=times(6))
@given(question=questions)
def test_a_price_is_what_the_changed_question_gets(question: dict[str, Any]) -> None:
    answer = answered(question)
    if answer.recommendation is None:
        assert answer.prices == ()
        return
    row = answer.candidate(answer.recommendation.method)
    question = question | {"sharding": answer.gpu.sharding}  # prices are of the plan's own engine
    for change in answer.prices:
        check_true(question, change)
        assert change.plan is not None
        assert change.memory_bytes == change.plan.memory.needed_bytes.likely - row.memory.needed_bytes.likely
        assert len(change.knobs) == 1


@settings(max_examples=times(6))
@given(question=questions)
def test_a_plan_of_the_frontier_is_what_its_flags_get(question: dict[str, Any]) -> None:
    answer = answered(question)
    if answer.recommendation is None:
        assert answer.frontier == ()
        return
    method = answer.recommendation.method
    row = answer.candidate(method)
    assert 1 <= len(answer.frontier) <= MOST_PLANS
    assert row.recipe in [plan.recipe for plan in answer.frontier]
    question = question | {"sharding": answer.gpu.sharding}
    for plan in answer.frontier:
        again = asked([*flags_for(question), *flags_of(plan.recipe, answer.fixed)]).candidate(method)
        assert (again.recipe, again.memory, again.time) == (plan.recipe, plan.memory, plan.time)


@settings(max_examples=times(6))
@given(question=questions)
def test_no_plan_of_the_frontier_beats_another(question: dict[str, Any]) -> None:
    plans = answered(question).frontier
    needed = [plan.memory.needed_bytes.high for plan in plans]
    times = [plan.time.total_s.likely for plan in plans if plan.time is not None]
    assert needed == sorted(needed)
    assert times == sorted(times, reverse=True)


def test_what_changes_the_training_is_marked() -> None:
    prices = {change.knobs[0]: change for change in advise("llama-8b", "a100-80gb", 3000, method="lora").prices}
    assert not prices["gradient_checkpointing"].changes_training
    assert not prices["kernels"].changes_training
    assert prices["target_modules"].changes_training
    assert prices["target_modules"].text.endswith("adapts 4 kinds of layers in place of 7")
    assert prices["target_modules"].memory_bytes < 0
    assert prices["rank"].changes_training
    assert "gradient_checkpointing" not in {
        change.knobs[0] for change in advise("llama-8b", "h100", 3000, gradient_checkpointing=True).prices
    }


def test_shorter_rows_have_a_price_even_where_their_length_is_fixed() -> None:
    answer = advise("llama-8b", "a100-80gb", 3000, seq_len=4096, mean_seq_len=800)
    (change,) = (one for one in answer.prices if one.knobs == ("seq_len",))
    assert change.workload is not None
    assert (change.workload.seq_len, change.workload.mean_seq_len) == (2048, 655)
    assert change.changes_training
    assert not any(
        one.knobs == ("seq_len",) for one in advise("llama-8b", "h100", seq_len=900, mean_seq_len=800).prices
    )


def test_other_micro_batches_of_the_same_rows_have_prices() -> None:
    def prices(**knobs: Any) -> dict[str, Change]:
        answer = advise("llama-8b", "h100", 3000, method="lora", seq_len=2048, mean_seq_len=500, **knobs)
        return {change.knobs[0]: change for change in answer.prices}

    grouped = prices(micro_batch=8)["group_by_length"]
    assert (grouped.time_s or 0) < -60
    assert grouped.changes_training
    assert grouped.flags[0] == "--group-by-length"
    assert (prices(micro_batch=8)["pad_to_multiple_of"].time_s or 0) > 0
    assert "group_by_length" not in prices(micro_batch=1)
    assert "group_by_length" not in prices(micro_batch=8, group_by_length=False)
    assert {"packing_strategy", "attention"} <= set(prices(packing=True, trainer="trl", micro_batch=8))
    assert not {"packing_strategy", "group_by_length", "pad_to_multiple_of"} & set(prices(packing=True))


@pytest.mark.parametrize("knobs", [{}, {"method": "full"}])
def test_a_card_of_unknown_speed_has_prices_in_memory(knobs: dict[str, Any]) -> None:
    answer = advise("smollm2-135m", "7GB", 3000, **knobs)
    assert answer.recommendation is not None
    assert answer.frontier
    assert answer.prices


def knobs_of(trainer: str, **knobs: Any) -> dict[str, list[str]]:
    """The values that are priced, by knob, as flags."""
    found: dict[str, list[str]] = {}
    for change in advise("llama-3.2-3b", "rtx4090", 3000, trainer=trainer, method="lora", **knobs).prices:
        found.setdefault(change.knobs[0], []).append(change.flags[0])
    return found


@pytest.mark.parametrize(
    ("trainer", "kernels", "offloads"),
    [
        ("transformers", ["--kernels liger"], False),
        ("trl", ["--kernels liger_norm,liger_rope,liger_mlp"], True),
        ("axolotl", ["--kernels liger,fused_lora", "--kernels cce,fused_lora"], True),
        ("llamafactory", ["--kernels liger"], True),
        ("torchtune", [], True),
        ("litgpt", [], False),
        ("unsloth", [], False),  # it offloads by itself
    ],
)
def test_what_the_trainer_can_switch_on_has_a_price(trainer: str, kernels: list[str], offloads: bool) -> None:
    found = knobs_of(trainer)
    assert found.get("kernels", []) == kernels
    assert ("offload" in found) == offloads
    assert "loss" not in found


def test_what_the_question_decides_has_none() -> None:
    found = knobs_of("axolotl", kernels="none", offload="none")
    assert not {"kernels", "offload"} & set(found)


def test_a_price_says_what_is_to_be_installed() -> None:
    (change,) = (one for one in advise("llama-3.2-3b", "rtx4090", 3000, method="lora").prices if "kernels" in one.knobs)
    assert change.text.endswith(", needs liger-kernel")
