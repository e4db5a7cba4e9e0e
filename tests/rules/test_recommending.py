"""Recommending rules: for each a job where it speaks and one just beside it where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.answer import Advice
from advisor.rules import RULES, find_rule
from advisor.units import format_seconds
from tests.fakes import MODEL, FakeCatalog, card, fake_estimate


def ask(gib: float, **knobs: Any) -> Advice:
    return advise(MODEL, card(gib), catalog=FakeCatalog(), estimator=fake_estimate, **knobs)


def decided(gib: float, **knobs: Any) -> tuple[str, str, int]:
    found = ask(gib, **knobs).recommendation
    assert found is not None, "nothing fits"
    return found.rule, found.method, found.rank


def texts(advice: Advice, code: str) -> str:
    assert advice.recommendation is not None
    return " ".join(reason.text for reason in advice.recommendation.reasons if reason.code == code)


@pytest.mark.parametrize(
    ("gib", "knobs", "answer"),
    [
        (2.5, {"examples": 3000}, ("ADV001", "qlora", 16)),
        (2.5, {"examples": 3000, "priority": "speed"}, ("ADV001", "qlora", 16)),
        (24, {"examples": 3000}, ("ADV003", "dora", 16)),
        (24, {"examples": 49_999}, ("ADV003", "dora", 16)),
        (24, {"examples": 50_000}, ("ADV004", "lora", 16)),
        (24, {"examples": 99_999}, ("ADV004", "lora", 16)),
        (24, {"examples": 100_000}, ("ADV002", "lora", 64)),
        (24, {"examples": 100_000, "rank": 8}, ("ADV002", "lora", 8)),
        (24, {"examples": 3000, "priority": "speed"}, ("ADV002", "lora", 16)),
        (24, {"examples": 3000, "priority": "memory"}, ("ADV006", "qlora", 16)),
        (24, {"examples": 200_000, "priority": "memory"}, ("ADV006", "qlora", 16)),
        (24, {"examples": 3000, "method": "qdora"}, ("ADV007", "qdora", 16)),
        (24, {"examples": 3000, "method": "full"}, ("ADV007", "full", 0)),
        (24, {"examples": 3000, "method": "all"}, ("ADV003", "dora", 16)),
        (4, {"examples": 3000}, ("ADV003", "lora", 16)),
        (24, {"examples": 3000, "rank": 4096}, ("ADV003", "dora", 4096)),
        (24, {"examples": 3000, "rank": 4096, "target_modules": "all-linear"}, ("ADV009", "full", 0)),
        (24, {"examples": 3000, "rank": 4096, "priority": "memory"}, ("ADV009", "full", 0)),
    ],
)
def test_which_rule_decides(gib: float, knobs: dict[str, Any], answer: tuple[str, str, int]) -> None:
    assert decided(gib, **knobs) == answer


def test_nothing_fits_recommends_nothing() -> None:
    advice = ask(1.0, examples=3000)
    assert advice.recommendation is None
    assert advice.alternatives[0].code == "ADV005"
    assert "the smallest is QLoRA with" in advice.alternatives[0].text


def test_qlora_states_what_16_bits_need() -> None:
    advice = ask(2.5, examples=3000)
    row = advice.candidate("lora")
    assert f"LoRA with a 16-bit base needs {row.memory.needed_bytes.likely / 2**30:.2f} GiB" in texts(advice, "ADV001")
    assert (row.recipe.micro_batch, row.recipe.gradient_checkpointing) == (1, True)


def test_dora_states_its_cost_in_time_and_gib() -> None:
    advice = ask(24, examples=30_000)
    dora, lora = advice.candidate("dora"), advice.candidate("lora")
    assert dora.time is not None
    assert lora.time is not None
    base = lora.time.total_s.likely
    said = texts(advice, "ADV003")
    assert f"adds {format_seconds(dora.time.total_s.likely - base)} to LoRA's {format_seconds(base)}" in said
    assert "and 1.00 GiB at the same micro-batch" in said, "the fake's DoRA costs one GiB"
    assert "0.469 and LoRA 0.478" in texts(advice, "ADV008")


def test_dora_that_does_not_fit_is_named_as_the_reason() -> None:
    said = texts(ask(4, examples=3000), "ADV003")
    assert "DoRA needs" in said
    assert "4.00 GiB" in said


def test_a_higher_rank_is_explained_and_so_is_its_absence() -> None:
    assert "Rank 64, alpha 128" in texts(ask(24, examples=100_000), "ADV002")
    assert "does not fit" in texts(ask(3.4, examples=100_000), "ADV002")
    assert "ank" not in texts(ask(24, examples=100_000, rank=8), "ADV002")


def test_tight_counts_only_when_nothing_fits() -> None:
    needed = ask(24, examples=3000, priority="memory").candidate("qlora").memory.needed_bytes
    between = (needed.likely + needed.high) / 2 / 2**30
    advice = ask(between, examples=3000, priority="memory")
    assert [row.verdict for row in advice.candidates if row.method == "qlora"] == ["tight"]
    assert advice.recommendation is not None
    assert advice.recommendation.method == "qlora"
    assert "ADV107" in [warning.code for warning in advice.recommendation.warnings]


def test_rules_have_distinct_codes_and_explain_themselves() -> None:
    assert len(RULES) == 28
    assert len({rule.code for rule in RULES}) == len(RULES)
    recommending = [rule.code for rule in RULES if rule.kind == "recommends"]
    assert recommending == ["ADV007", "ADV006", "ADV001", "ADV002", "ADV003", "ADV004", "ADV009", "ADV005"]
    for rule in RULES:
        headline, _, body = rule.explanation.partition("\n\n")
        assert headline.endswith(".")
        assert len(body) > 150, rule.code
        assert all(rule.sources)
        assert find_rule(rule.code.lower()) is rule
