"""The library's door: one JSON contract, what was fixed and what was chosen, several cards, several GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.advice.advise import advise
from advisor.answer import Advice
from advisor.errors import AdvisorError, BadValue, UnknownName
from advisor.knobs import KNOBS
from advisor.specs import METHODS, GpuSpec, Recipe
from tests.fakes import MODEL, CountingEstimator, FakeCatalog, card, fake_estimate


class SeveralCards(FakeCatalog):
    """'24GB' stands for three cards, one of them without bf16."""

    def find_gpus(self, text: str) -> tuple[GpuSpec, ...]:
        return (
            card(24, "quick", tflops=200),
            card(23, "slow", tflops=50),
            card(22, "old", generation="Turing", bf16=False),
        )


def ask(gpu: str | GpuSpec = "eighty", **knobs: Any) -> Advice:
    return advise("small-1b", gpu, catalog=FakeCatalog(), estimator=fake_estimate, **knobs)


def test_the_json_contract() -> None:
    answer = json.loads(ask(examples=3000).model_dump_json())
    assert answer["schema_version"] == 1
    assert {"model", "gpu", "workload", "recommendation", "candidates"} <= set(answer)
    assert set(answer["recommendation"]) == {"method", "rank", "learning_rate", "rule", "reasons", "warnings"}
    assert [row["method"] for row in answer["candidates"]] == list(METHODS)
    for row in answer["candidates"]:
        assert set(row["recipe"]) == set(Recipe.model_fields)
        assert row["verdict"] in ("fits", "tight", "does_not_fit")
        memory, time = row["memory"], row["time"]
        counters = {"peak_allocated_bytes", "peak_reserved_bytes", "needed_bytes", "device_bytes"}
        assert set(memory) == counters | {"peak_at", "terms", "moments", "host_bytes", "machine_bytes"}
        assert set(memory["device_bytes"]) == {"low", "likely", "high"}
        assert set(memory["terms"][0]) == {"name", "bytes"}
        assert set(time) == {
            "micro_step_s",
            "step_s",
            "total_s",
            "steps",
            "tokens_per_s",
            "bound",
            "flop_per_step",
            "mfu",
            "energy_j",
            "evaluation_s",
        }
        assert row["evidence"]["rung"] == "formula"


@given(
    gib=st.sampled_from([1, 2, 4, 8, 24, 80]),
    method=st.sampled_from(["all", *METHODS]),
    examples=st.integers(1, 10**12),
    epochs=st.floats(1e-6, 10_000),
    gpus=st.sampled_from([1, 2, 16]),
)
def test_json_goes_there_and_back(gib: int, method: str, examples: int, epochs: float, gpus: int) -> None:
    answer = advise(
        MODEL,
        card(gib),
        examples,
        method=method,
        epochs=epochs,
        gpus=gpus,
        catalog=FakeCatalog(),
        estimator=fake_estimate,
    )
    text = answer.model_dump_json()
    assert Advice.model_validate_json(text) == answer
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_names_and_specs_give_the_same_answer() -> None:
    by_name = ask("eighty", examples=3000)
    by_spec = advise(MODEL, card(80, "eighty"), 3000, catalog=FakeCatalog(), estimator=fake_estimate)
    assert by_name == by_spec
    assert by_name.model_id == "maker/small-1b"


def test_fixed_and_chosen_share_out_the_knobs() -> None:
    answer = ask(examples=3000, rank="8", quant=None, priority="speed")
    assert set(answer.fixed) == {"examples", "rank", "priority"}
    assert {"rank", "examples"}.isdisjoint(answer.chosen)
    assert set(answer.chosen).isdisjoint(answer.trainer.knobs)
    assert {*answer.chosen, *answer.trainer.knobs, "examples", "rank"} == {
        knob.name for knob in KNOBS if knob.home in ("workload", "recipe")
    }
    assert all(row.recipe.rank == 8 for row in answer.candidates if row.method != "full")


def test_a_plain_calculator() -> None:
    answer = ask("eight", method="lora", micro_batch=2, seq_len=512, gradient_checkpointing=True)
    (row,) = answer.candidates
    expected = fake_estimate(MODEL, row.recipe, answer.workload, card(8, "eight"))
    assert (row.recipe.micro_batch, row.recipe.gradient_checkpointing, answer.workload.seq_len) == (2, True, 512)
    assert row.memory == expected.memory
    assert row.time == expected.time


def test_the_name_of_a_card_may_say_how_many() -> None:
    answer = ask("2x eighty")
    assert (answer.gpu.gpus, answer.gpu.cards, answer.gpu.asked) == (2, ("eighty",), "eighty")
    assert "gpus" in answer.fixed
    assert ask("2 X eighty", gpus=2) == answer
    with pytest.raises(BadValue, match="--gpus is 4: --gpu 2x eighty already says 2"):
        ask("2x eighty", gpus=4)
    with pytest.raises(BadValue, match="--gpus is 0"):
        ask("0x eighty")


def test_a_name_sold_in_two_sizes_is_said_to_be() -> None:
    def sizes(gpu: str) -> list[str]:
        notes = advise("llama-3.2-1b", gpu, 100, method="lora", estimator=fake_estimate).notes
        return [note.text.rpartition("--gpu ")[2] for note in notes if "also sold" in note.text]

    assert sizes("A100") == ["a100-80gb."]
    assert sizes("2x a100") == ["a100-80gb."]
    assert sizes("a100-40gb") == sizes("a10") == sizes("rtx4090") == []


def test_what_differs_from_an_ordinary_cuda_card_is_said() -> None:
    def said(gpu: str) -> tuple[str, bool]:
        answer = advise("llama-3.2-1b", gpu, 100, method="lora")
        return " ".join(note.text for note in answer.notes), answer.candidates[0].time is not None

    spark, timed = said("DGX Spark")
    assert "shares its memory with the CPU" in spark
    assert "The speed of NVIDIA GB10 is not known." in spark, "and no ordinary card of that size stands in for it"
    assert not timed
    instinct, timed = said("MI300X")
    assert "ROCm" in instinct
    assert "AOTRITON" not in instinct
    assert timed
    assert "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1" in said("7900xtx")[0]
    assert "ROCm" not in said("rtx4090")[0]


def test_what_is_no_model_and_no_card_is_refused_in_our_own_words() -> None:
    with pytest.raises(BadValue, match="model is None, but must be text"):
        advise(None, None)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match='gpu is 24: for a card of that size give "24GB"'):
        advise("llama-8b", 24)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="gpu is True, but must be text or a GpuSpec"):
        advise("llama-8b", True)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="'zzz'; this answer has lora"):
        ask(method="lora").candidate("zzz")  # type: ignore[arg-type]


def test_a_size_gives_one_verdict_and_a_range_of_times() -> None:
    answer = advise(MODEL, "24GB", 3000, catalog=SeveralCards(), estimator=fake_estimate)
    assert answer.gpu.cards == ("quick", "slow")
    assert answer.gpu.memory_bytes == 23 * 2**30
    row = answer.candidate("lora")
    assert (row.fastest_card, row.slowest_card) == ("quick", "slow")
    assert row.time is not None
    assert row.time.total_s.high / row.time.total_s.low > 3
    assert any("old" in note.text for note in answer.notes)


def unknown(gib: int = 8) -> GpuSpec:
    return GpuSpec(name="odd", generation="", memory_bytes=gib * 2**30, marketed_gb=gib)


def test_a_card_of_unknown_speed_gets_the_range_of_its_neighbors() -> None:
    answer = advise(MODEL, unknown(), 3000, method="lora", catalog=FakeCatalog(), estimator=fake_estimate)
    row, near = answer.candidates[0], FakeCatalog().cards_near(8 * 2**30)
    assert row.time is not None
    assert (row.fastest_card, row.slowest_card) != ("odd", "odd")
    fixed = {"micro_batch": row.recipe.micro_batch, "gradient_checkpointing": row.recipe.gradient_checkpointing}
    alone = [
        advise(MODEL, one, 3000, method="lora", **fixed, catalog=FakeCatalog(), estimator=fake_estimate)
        .candidates[0]
        .time
        for one in near
    ]
    assert row.time.total_s.high == max(time.total_s.high for time in alone if time)
    (note,) = [note.text for note in answer.notes if "speed" in note.text]
    assert f"{len(near)} catalog cards" in note


def test_what_a_card_costs_is_its_hours() -> None:
    one = ask(examples=3000, method="lora", price_per_hour=1.5)
    row = one.candidates[0]
    assert row.time is not None
    assert row.cost is not None
    assert row.cost.likely == pytest.approx(1.5 * row.time.total_s.likely / 3600)
    four = ask(examples=3000, method="lora", price_per_hour=1.5, gpus=4, batch_size=16).candidates[0]
    assert four.time is not None
    assert four.cost is not None
    assert four.cost.high == pytest.approx(4 * 1.5 * four.time.total_s.high / 3600)
    assert ask(examples=3000, method="lora").candidates[0].cost is None
    assert one.fixed == ("examples", "method", "price_per_hour")


def test_cards_divide_the_time() -> None:
    fixed: dict[str, Any] = {"method": "lora", "examples": 6400, "micro_batch": 2, "gradient_checkpointing": True}
    one, four = ask(**fixed, batch_size=16).candidates[0], ask(**fixed, batch_size=16, gpus=4)
    row = four.candidates[0]
    assert row.memory == one.memory
    assert one.time is not None
    assert row.time is not None
    assert row.time.total_s.likely == pytest.approx(one.time.total_s.likely / 4)
    assert row.time.tokens_per_s == pytest.approx(one.time.tokens_per_s * 4)
    assert row.recipe.gradient_accumulation == 2
    assert four.workload.batch_size == 16


def test_nothing_fits_lists_what_would() -> None:
    answer = advise("small-3b", card(2, "two"), 3000, catalog=FakeCatalog(), estimator=fake_estimate)
    assert answer.recommendation is None
    said = " ".join(reason.text for reason in answer.alternatives)
    assert "A bigger card, four (4.00 GiB): QLoRA then needs" in said
    assert "A bigger card, eight (8.00 GiB): LoRA then needs" in said
    assert "Data-parallel" not in said
    assert "More cards do not help" in said
    assert "A smaller model, small-0.2b" in said, "the largest that fits of the same series"
    assert "other-0.2b" not in said


def test_what_would_fit_does_fit() -> None:
    """Each remedy is applied as it is worded; then something fits."""
    base: dict[str, Any] = {"examples": 3000, "micro_batch": 8, "method": "lora"}
    gib = 4.0
    answer = ask(card(gib), **base)
    said = [reason.text for reason in answer.alternatives]
    assert answer.recommendation is None
    assert any("Leave --micro-batch open" in text for text in said)
    assert ask(card(gib), examples=3000, method="lora").recommendation is not None
    shorter = next(text for text in said if text.startswith("--seq-len"))
    length = int(shorter.split(":")[0].split()[1])
    assert ask(card(gib), **base, seq_len=length).recommendation is not None
    assert ask(card(gib), **base, seq_len=2 * length).recommendation is None
    for method in METHODS:
        named = any(text.startswith(f"--method {method}:") for text in said)
        if method not in ("full", "lora"):
            assert named == (ask(card(gib), **{**base, "method": method}).recommendation is not None)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"batch_size": 997}, "a card does one row at a time, or 997. --batch-size 1000 leaves the choice"),
        ({"batch_size": 2 * 997, "gpus": 2}, "or 997. --batch-size 2000 leaves"),
        ({"batch_size": 1000}, ""),
        ({"batch_size": 3}, ""),
        ({"batch_size": 25}, "one row at a time, or 5. --batch-size 32 leaves"),
        ({"batch_size": 997, "micro_batch": 1}, ""),
        ({}, ""),
    ],
)
def test_an_odd_batch_is_said(knobs: dict[str, Any], said: str) -> None:
    texts = [note.text for note in ask("eighty", examples=5000, **knobs).notes if "no small divisor" in note.text]
    assert (said in texts[0]) if said else not texts


def test_why_compares_the_rows() -> None:
    answer = ask("eight", examples=3000)
    assert answer.recommendation is not None
    assert answer.candidate(answer.recommendation.method).why == f"recommended by {answer.recommendation.rule}"
    assert answer.candidate("full").why.endswith("of 8.00 GiB")
    others = [row for row in answer.candidates if row.verdict == "fits" and "recommended" not in row.why]
    assert len(others) >= 2
    assert all("GiB" in row.why and "x time" in row.why for row in others)


def test_the_command_needs_few_estimates() -> None:
    counter = CountingEstimator()
    advise(MODEL, "24GB", 3000, catalog=SeveralCards(), estimator=counter)
    assert len(counter.recipes) <= 152


def test_data_is_counted_and_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(("x" * 400 + "\n") * 50)
    answer = ask(data=str(path))
    assert (answer.workload.examples, answer.workload.mean_seq_len, answer.workload.seq_len) == (50, 93, 93)
    assert "50 rows, mean 93 (77 to 130)" in answer.notes[0].text
    both = ask(data=str(path), examples=7)
    assert both.workload.examples == 7
    assert "7 of 50 rows" in both.notes[0].text


@pytest.mark.parametrize(
    ("knobs", "error", "words"),
    [
        ({"target_modules": "q_projj"}, UnknownName, "q_proj"),
        ({"method": "loraa"}, UnknownName, "lora"),
        ({"rnak": 3}, UnknownName, "rank"),
        ({"rank": 0}, BadValue, "1 to 16,384"),
        ({"sharding": "pipeline"}, UnknownName, "known: none, ddp, fsdp1, fsdp2"),
        ({"trainer": "trll"}, UnknownName, "transformers"),
        ({"batch_size": 10, "gpus": 4}, BadValue, "--gpus"),
    ],
)
def test_bad_input_is_one_line(knobs: dict[str, Any], error: type[AdvisorError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        ask(**knobs)
    assert "\n" not in str(caught.value)


def test_unknown_names_list_near_matches() -> None:
    with pytest.raises(UnknownName, match="did you mean small-1b"):
        advise("smal-1b", "eight", catalog=FakeCatalog(), estimator=fake_estimate)
    with pytest.raises(UnknownName, match="did you mean eight"):
        advise("small-1b", "eigth", catalog=FakeCatalog(), estimator=fake_estimate)
