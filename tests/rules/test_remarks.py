"""Rules that remark: each speaks with this job's own numbers, and is silent just beside."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.answer import Advice
from advisor.specs import METHODS, GpuSpec
from advisor.units import GIB, format_learning_rate, format_seconds
from tests.fakes import MODEL, FakeCatalog, card, fake_estimate


def ask(gpu: GpuSpec | None = None, **knobs: Any) -> Advice:
    knobs = {"examples": 3000, **knobs}
    return advise(MODEL, gpu or card(24), catalog=FakeCatalog(), estimator=fake_estimate, **knobs)


def remarked(gpu: GpuSpec | None = None, **knobs: Any) -> dict[str, str]:
    """Reasons by code, texts of one code joined."""
    advice = ask(gpu, **knobs)
    assert advice.recommendation is not None
    found: dict[str, str] = {}
    for reason in advice.recommendation.reasons:
        found[reason.code] = f"{found.get(reason.code, '')} {reason.text}".strip()
        assert reason.source
    return found


def test_evidence_for_dora_and_for_the_attention_only() -> None:
    everywhere = remarked(method="dora", target_modules="all-linear")["ADV008"]
    assert "(benchmark suite) DoRA scored 0.469 and LoRA 0.478" in everywhere
    assert "attention" not in everywhere
    attention = remarked(method="dora", target_modules="attention")["ADV008"]
    assert "attention-only adapters fell behind those with the MLP (swept study)" in attention
    assert "ADV008" not in remarked(method="lora", target_modules="attention")


def test_the_alternative_to_the_attention_only_has_its_time() -> None:
    answer = ask()
    lora = answer.candidate("lora")
    assert answer.candidate("dora").recipe.target_modules == ("attention",)
    assert lora.time is not None
    assert f"LoRA on all linear layers takes {lora.time.total_s.likely / 60:.2f} min." in remarked()["ADV008"]


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (44_999, ""),
        (45_000, "From 50,000 examples on this would be LoRA, "),
        (49_999, "From 50,000 examples on this would be LoRA, "),
        (50_000, "Below 50,000 examples this would be DoRA, "),
        (55_000, "Below 50,000 examples this would be DoRA, "),
        (55_001, ""),
        (89_999, ""),
        (90_000, "From 100,000 examples on the rank would be 64 ("),
        (99_999, "From 100,000 examples on the rank would be 64 ("),
        (100_000, "Below 100,000 examples the rank would be 16 ("),
        (110_001, ""),
    ],
)
def test_near_a_threshold_the_other_side_is_named(examples: int, words: str) -> None:
    text = remarked(examples=examples).get("ADV010", "")
    assert text.startswith(words) if words else not text


def test_the_other_side_has_its_price() -> None:
    answer = ask(examples=49_999)
    dora, lora = (answer.candidate(method).time for method in ("dora", "lora"))
    assert dora is not None
    assert lora is not None
    its, other = format_seconds(dora.total_s.likely), format_seconds(lora.total_s.likely)
    price = f"{other} in place of {its} here"
    assert price in remarked(examples=49_999)["ADV010"]
    assert f"DoRA, {its} in place of" in remarked(examples=50_000)["ADV010"]
    assert "GiB, 1.00 times the time); --rank 64" in remarked(examples=99_999)["ADV010"]
    assert "does not fit)" in remarked(card(3.4), examples=99_999)["ADV010"]


@pytest.mark.parametrize(
    "knobs",
    [
        {"examples": 49_999, "method": "dora"},
        {"examples": 49_999, "priority": "speed"},
        {"examples": 50_000, "priority": "memory"},
        {"examples": 100_000, "rank": 16},
        {"examples": 100_000, "method": "lora"},
    ],
)
def test_a_threshold_that_decided_nothing_is_not_named(knobs: dict[str, Any]) -> None:
    assert "ADV010" not in remarked(**knobs)


def test_full_fine_tuning_that_fits_too() -> None:
    answer = ask(card(80), priority="speed")
    full, lora = answer.candidate("full"), answer.candidate("lora")
    text = remarked(card(80), priority="speed")["ADV011"]
    assert f"it needs {full.memory.needed_bytes.likely / GIB:.1f} GiB" in text
    assert full.time is not None
    assert (
        f"and {full.time.total_s.likely / 60:.2f} min, LoRA {lora.memory.needed_bytes.likely / GIB:.1f} GiB and" in text
    )
    assert "ADV011" not in remarked(card(12), priority="speed"), "it does not fit"
    assert "ADV011" not in remarked(card(80), method="lora"), "it was not asked about"


def test_full_that_needs_no_more_memory() -> None:
    assert "Full fine-tuning fits too" in remarked(rank=2048, target_modules="all-linear", priority="speed")["ADV011"]


def test_dtypes_of_full_fine_tuning() -> None:
    text = remarked(method="full")["ADV012"]
    assert text.startswith(
        "Assumed: weights and gradients in bf16, states of adamw in bf16, 8 bytes a parameter: small updates are lost."
    )
    assert "(--base-dtype float32) need " in text
    assert text.endswith("which fits in 24.0.")
    assert remarked(card(17.5), method="full")["ADV012"].endswith("only just fits in 17.5.")
    assert remarked(card(17), method="full")["ADV012"].endswith("does not fit in 17.0.")
    fp32 = remarked(method="full", base_dtype="float32", optimizer="paged_adamw_8bit")["ADV012"]
    assert fp32.startswith("Assumed: weights and gradients in fp32, states of paged_adamw_8bit in their own dtype. ")
    assert "Pure bf16 (--base-dtype bfloat16), which loses small updates, needs " in fp32
    some = remarked(method="full", trained_layers=2)["ADV012"]
    assert "fp32 weights (--trained-dtype float32) need" in some
    turing = remarked(card(24, "old", generation="Turing", bf16=False), method="full")["ADV012"]
    assert "because the card has no bf16 and fp16 gradients cannot be unscaled" in turing
    assert "ADV012" not in remarked()


def test_a_rank_below_what_the_data_hold() -> None:
    """12.6M parameters at rank 16 hold 25.2M bits."""
    capacity = 2 * ask(method="lora").candidate("lora").trainable_parameters
    few, many = (int(times * capacity / 512) for times in (1.9, 2.1))
    assert "ADV013" not in remarked(method="lora", rank=16, examples=few)
    text = remarked(method="lora", rank=16, examples=many)["ADV013"]
    assert text.startswith(f"Rank 16 can hold about {capacity / 1e6:.1f}M bits (2 a parameter), less than the data's ")
    assert "(swept study)" in text
    assert "--rank 64 would hold them for 0.42 GiB more." in text
    assert "which does not fit." in remarked(card(3.4), method="lora", rank=16, examples=many)["ADV013"]
    huge = (remarked(method="lora", rank=16, examples=times * many)["ADV013"] for times in (25, 100))
    ends = (
        "No rank up to 256 holds them; full fine-tuning would.",
        "No rank up to 256 holds them; nor do all weights.",
    )
    assert all(text.endswith(end) for text, end in zip(huge, ends, strict=True))


def test_a_rank_far_above_what_the_data_hold() -> None:
    text = remarked(method="lora", rank=64)["ADV013"]
    assert text.startswith(
        "Rank 16 would do: it can hold 16 times the data's 1.54M tokens (about 1 bit each), and saves"
    )
    assert "ADV013" not in remarked(method="lora", rank=64, examples=6000), "not ten times as many"
    assert "ADV013" not in remarked(method="lora", rank=16)
    assert "ADV013" not in remarked(method="full")


def test_alpha_at_high_rank() -> None:
    text = remarked(method="lora", rank=64)["ADV014"]
    assert "alpha/rank = 2, a swept study's choice" in text
    assert "alpha 16 is the same there" in text
    low = remarked(method="lora", rank=64, alpha=16)["ADV014"]
    assert "alpha/rank = 0.25, which slows learning; --alpha 128 (swept study) or use_rslora=True" in low
    assert "gives 2, makes up" in low
    assert "ADV014" not in remarked(method="lora", rank=63)
    assert "ADV014" not in remarked(method="full", rank=64)


@pytest.mark.parametrize("method", METHODS)
def test_a_learning_rate_with_its_source(method: str) -> None:
    answer = ask(card(80), method=method)
    rate = {"full": 1e-5, "dora": 1e-4, "qdora": 1e-4}.get(method, 2e-4)
    assert answer.recommendation is not None
    assert answer.recommendation.learning_rate == rate
    text = remarked(card(80), method=method)["ADV015"]
    assert text.startswith(f"Start from a learning rate of {format_learning_rate(rate)}: ")
    assert text.endswith((" (anecdote).", " (benchmark suite)."))
