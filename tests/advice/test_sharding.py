"""Which engine the search takes, what the others need, and fewer and more cards."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import advise
from advisor.errors import InputError
from advisor.export.training_file import training_file
from advisor.terms import TermName

JOB: dict[str, Any] = {"model": "llama-3.1-8b", "examples": 3000}


def test_a_copy_on_each_card_is_taken_where_it_fits_and_is_as_fast() -> None:
    answer = advise(gpu="h100", gpus=4, method="lora", **JOB)
    assert answer.gpu.sharding == "ddp"
    fastest = min(answer.engines, key=lambda one: one.plan.time.total_s.likely)  # type: ignore[union-attr]
    assert fastest.engine == "zero2", "which trains adapters in 16 bits"


def test_what_no_card_holds_is_spread() -> None:
    answer = advise(gpu="h100", gpus=8, method="full", **JOB | {"batch_size": 8})
    assert answer.candidates[0].verdict == "fits"
    spread = advise("llama-3.3-70b", "h100", gpus=8, method="lora", examples=3000)
    assert spread.gpu.sharding == "fsdp2"
    assert spread.candidates[0].placement is not None
    assert spread.candidates[0].placement.sharding == "fsdp2"
    copies = advise("llama-3.3-70b", "h100", gpus=8, method="lora", examples=3000, sharding="ddp")
    assert copies.recommendation is None


def test_the_other_engines_are_what_the_question_gets_with_them() -> None:
    answer = advise(gpu="h100", gpus=4, method="lora", **JOB)
    assert [one.engine for one in answer.engines] == ["ddp", "fsdp2", "zero1", "zero2", "zero3"]
    for one in answer.engines[1::2]:
        asked = advise(gpu="h100", gpus=4, method="lora", sharding=one.engine, **JOB).candidates[0]
        assert (asked.recipe, asked.memory, asked.time) == (one.plan.recipe, one.plan.memory, one.plan.time)


def test_other_numbers_of_cards_are_what_the_question_gets_with_them() -> None:
    answer = advise(gpu="h100", gpus=4, method="lora", **JOB)
    assert [one.gpus for one in answer.scaling] == [1, 2, 4, 8], "more need a second machine"
    for one in answer.scaling[:3]:
        asked = advise(gpu="h100", gpus=one.gpus, method="lora", **JOB).candidates[0]
        assert (asked.recipe, asked.memory, asked.time) == (one.plan.recipe, one.plan.memory, one.plan.time)
    assert advise(gpu="h100", method="lora", **JOB).scaling == ()


def test_more_cards_are_among_what_would_fit() -> None:
    answer = advise(gpu="rtx4090", method="full", **JOB)
    assert answer.recommendation is None
    change = next(one for one in answer.alternatives if "of these cards by fsdp2" in one.text)
    assert change.plan is not None
    assert change.plan.verdict == "fits"
    assert change.flags[0] == "--gpu 8xrtx4090"


def test_weights_that_are_spread_may_stay_in_16_bits() -> None:
    answer = advise(gpu="rtx4090", gpus=4, method="full", **JOB)
    change = next(one for one in answer.alternatives if one.text.startswith("--no-autocast"))
    assert change.changes_training
    assert change.plan is not None
    assert change.plan.verdict == "fits"


@pytest.mark.parametrize(
    ("host_memory_gb", "verdict", "said"),
    [
        (None, "tight", "--host-memory-gb is not given"),
        (256.0, "fits", "of 256, how the model is loaded included"),
        (64.0, "tight", "only just fits a machine's own memory"),
        (32.0, "does_not_fit", "of 32"),
    ],
)
def test_parameters_on_the_host_must_fit_there(host_memory_gb: float | None, verdict: str, said: str) -> None:
    knobs: dict[str, Any] = {"host_memory_gb": host_memory_gb} if host_memory_gb else {}
    answer = advise("llama-3.3-70b", "a10", gpus=2, method="qlora", seq_len=512, offload="parameters", **knobs)
    row = answer.candidates[0]
    assert row.verdict == verdict
    assert row.memory.host_bytes > 15 * 2**30
    assert row.time is not None
    assert row.time.total_s.high > 1.5 * row.time.total_s.low
    reasons = answer.recommendation.warnings if answer.recommendation else answer.alternatives
    assert said in " ".join(one.text for one in reasons)


@pytest.mark.parametrize(
    ("trainer", "method", "engine"),
    [("litgpt", "full", "fsdp1"), ("litgpt", "lora", "fsdp2"), ("torchtune", "lora", "fsdp2")],
)
def test_a_trainer_with_one_engine_is_given_no_other(trainer: str, method: str, engine: str) -> None:
    answer = advise(gpu="80GB", gpus=2, method=method, trainer=trainer, **JOB)
    assert {row.placement.sharding for row in answer.candidates if row.placement is not None} == {engine}
    assert {one.engine for one in answer.engines} == ({engine} if answer.recommendation else set())


def test_each_method_gets_the_engine_that_its_trainer_runs_it_with() -> None:
    answer = advise(gpu="80GB", gpus=4, trainer="litgpt", **JOB)
    found = {row.method: row.sharding for row in answer.candidates}
    assert found == {"full": "fsdp1", "lora": "fsdp2"}
    with pytest.raises(InputError, match="does not have it on several cards; --trainer transformers does"):
        advise(gpu="80GB", gpus=4, trainer="litgpt", method="qlora", **JOB)


def test_other_numbers_of_cards_have_what_the_trainer_sets_there() -> None:
    answer = advise(gpu="80GB", gpus=2, method="full", trainer="torchtune", **JOB)
    optimizers = {one.gpus: one.plan.recipe.optimizer for one in answer.scaling}
    assert optimizers == {1: "paged_adamw_8bit", 2: "adamw", 4: "adamw", 8: "adamw"}
    alone = advise(gpu="80GB", method="full", trainer="torchtune", **JOB).candidates[0]
    assert answer.scaling[0].plan.memory == alone.memory


def test_torchtune_runs_no_optimizer_of_bitsandbytes_on_several_cards() -> None:
    asked: dict[str, Any] = {"trainer": "torchtune", "method": "full", **JOB}
    with pytest.raises(
        InputError, match="with --method full: torchtune runs bitsandbytes' optimizers on one card alone"
    ):
        advise(gpu="h100", gpus=8, optimizer="adamw_8bit", **asked)
    answer = advise(gpu="24GB", gpus=2, **asked)
    assert answer.recommendation is None
    assert "8bit" not in " ".join(one.text for one in answer.alternatives)


def test_torchtune_on_several_cards_is_written_as_it_is_recommended() -> None:
    answer = advise(gpu="h100", gpus=8, trainer="torchtune", **JOB)
    assert [row.method for row in answer.candidates] == ["full", "lora", "dora", "qlora", "qdora"]
    for row in answer.candidates:
        file = training_file(answer, row, "torchtune")
        assert "_finetune_distributed --config" in file.command
        assert "_component_: torch.optim.AdamW\n  fused: true\n" in file.text.replace('"', "")
        assert "bnb_4bit" not in " ".join(one.text for one in answer.recommendation.warnings)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"gpus": 8, "nodes": 2}, "--network-gbit"),
        ({"gpus": 8, "nodes": 3, "network_gbit": 100.0}, "must divide gpus"),
        ({"gpus": 2, "sharding": "hsdp"}, "use fsdp2"),
        ({"gpus": 2, "sharding": "ddp", "offload": "parameters"}, "use fsdp2"),
        ({"gpus": 2, "sharding": "fsdp1", "method": "dora"}, "use --sharding fsdp2"),
        ({"gpus": 2, "sharding": "fsdp2", "trainer": "unsloth"}, "use --sharding ddp"),
        ({"gpus": 2, "sharding": "fsdp2", "quant": "int8", "method": "qlora"}, "use --sharding ddp"),
        ({"gpus": 2, "sharding": "fsdp2", "model": "unsloth/Qwen3-8B-bnb-4bit", "method": "qlora"}, "stored as uint8"),
        ({"gpus": 0}, "from 1"),
        ({"gpus": 1_000_000}, "to 100,000"),
    ],
)
def test_what_several_cards_cannot_do_is_refused_in_one_line(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        advise(gpu="24GB", **{**JOB, **knobs})
    assert "\n" not in str(raised.value)


def test_methods_that_an_engine_cannot_run_are_left_out() -> None:
    answer = advise(gpu="24GB", gpus=2, sharding="fsdp2", quant="int8", **JOB)
    assert [row.method for row in answer.candidates] == ["full", "lora", "dora"]


@pytest.mark.parametrize("sharding", ["zero1", "zero2", "zero3"])
def test_gradients_that_leave_at_once_do_not_take_those_of_checkpointed_inputs(sharding: str) -> None:
    knobs = {"method": "full", "gpus": 4, "sharding": sharding, "micro_batch": 1, "batch_size": 16}
    needs = [
        advise("llama-3.2-1b", "a100-80gb", 3000, gradient_checkpointing=True, reentrant=reentrant, **knobs)
        .candidates[0]
        .memory.needed_bytes.likely
        for reentrant in (True, False)
    ]
    assert needs[0] == pytest.approx(needs[1], rel=0.02)


def test_rows_with_images_run_as_copies_and_are_spread_by_nothing_else() -> None:
    job = {"model": "llava-1.6-mistral-7b", "gpu": "80GB", "examples": 1000, "method": "lora"}
    job |= {"images": 1, "image_size": "640x480"}
    one = advise(**job, batch_size=1).candidates[0]
    answer = advise(**job, batch_size=2, gpus=2)
    assert [one.engine for one in answer.engines] == [answer.gpu.sharding] == ["ddp"]
    sizes = [{term.name: term.bytes for term in row.memory.terms} for row in (one, answer.candidates[0])]
    more = {name for name, size in sizes[1].items() if size != sizes[0].get(name)}
    assert more == {TermName.REDUCTION, TermName.COMMUNICATION}, "the rest is the step of one card"
    for engine in ("fsdp2", "fsdp1", "zero2", "zero3"):
        with pytest.raises(InputError, match="how the tower that reads images is spread is not known; use --sharding"):
            advise(**job, batch_size=2, gpus=2, sharding=engine)


def test_a_refusal_that_holds_for_every_method_names_none() -> None:
    job = {"model": "qwen2.5-vl-7b", "gpu": "a100-80gb", "gpus": 4, "sharding": "zero2", "images": 2}
    with pytest.raises(InputError, match=r"^--sharding is 'zero2': how the tower"):
        advise(**job)
    with pytest.raises(InputError, match=r"^--sharding is 'zero2': with --method lora: how the tower"):
        advise(**job, method="lora")


def test_what_would_fit_spreads_no_rows_with_images() -> None:
    job = {"model": "llama-3.2-11b-vision", "gpu": "24GB", "examples": 1000, "method": "qlora"}
    answer = advise(**job, images=1, image_size="1024x768")
    assert answer.recommendation is None
    assert not [one for one in answer.alternatives if "of these cards by" in one.text]
