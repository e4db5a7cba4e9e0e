"""What a trainer can switch on, what it ignores, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.advice.switches import implied, stack_of, switched
from advisor.catalog.trainers import find_trainer
from advisor.errors import BadValue
from advisor.knobs import read_question
from tests.fakes import MODEL, FakeCatalog, card


@pytest.mark.parametrize(
    ("trainer", "knobs", "message"),
    [
        ("torchtune", {"kernels": "liger"}, r"--kernels is 'liger_norm': torchtune 0\.6\.1 cannot .*--trainer transf"),
        ("transformers", {"kernels": "cce"}, "--trainer axolotl can"),
        (
            "transformers",
            {"offload": "activations"},
            "--trainer trl or axolotl or llamafactory or unsloth or torchtune can",
        ),
        ("transformers", {"optimizer_in_backward": True}, "--trainer torchtune can"),
        ("torchtune", {"optimizer_in_backward": True, "method": "lora"}, "for the methods in question"),
        ("torchtune", {"optimizer_in_backward": True, "method": "full", "micro_batch": 1}, "--micro-batch is 1"),
        ("trl", {"quantize_experts": True}, "--trainer axolotl can"),
    ],
)
def test_what_a_trainer_does_not_have_is_refused(trainer: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=message) as caught:
        switched(find_trainer(trainer), read_question(knobs), "llama")
    assert "\n" not in str(caught.value)


def test_trl_goes_on_without_the_fused_loss() -> None:
    question, notes = switched(find_trainer("trl"), read_question({"kernels": "liger"}), "llama")
    assert question.kernels == ("liger_norm", "liger_rope", "liger_mlp")
    (note,) = notes
    assert "--kernels liger_loss: trl goes on without it" in note.text
    advice = advise(MODEL, card(24), catalog=FakeCatalog(), trainer="trl", kernels="liger", method="lora")
    assert advice.candidates[0].recipe.loss == "chunked"
    assert note.text in [one.text for one in advice.notes]


def test_a_trainer_s_own_list_of_models() -> None:
    question, notes = switched(find_trainer("llamafactory"), read_question({"kernels": "liger_norm"}), "smollm3")
    assert question.kernels == ()
    assert [note.text for note in notes] == [
        "--kernels liger_norm: llamafactory goes on without it: smollm3 is not in its list of models."
    ]


def test_offloading_decides_on_checkpointing() -> None:
    question = read_question({"offload": "activations"})
    axolotl = find_trainer("axolotl")
    assert implied(axolotl, question, "lora") == {"gradient_checkpointing": False}
    assert implied(axolotl, question, "full") == {"gradient_checkpointing": True, "reentrant": False}
    assert implied(axolotl, read_question({}), "lora") == {}
    asked = read_question({"offload": "activations", "gradient_checkpointing": False})
    with pytest.raises(BadValue, match=r"--offload activations of torchtune 0\.6\.1 turns it on for full"):
        implied(find_trainer("torchtune"), asked, "full")


def test_what_the_trainer_alone_offloads_gives_way_to_the_question() -> None:
    unsloth, off = find_trainer("unsloth"), {"gradient_checkpointing": False}
    assert implied(unsloth, read_question({}), "lora") == {"gradient_checkpointing": True}
    assert implied(unsloth, read_question(off), "lora") == {"offload": "none"}
    found = advise(MODEL, card(24), catalog=FakeCatalog(), trainer="unsloth", method="lora", **off).candidates[0].recipe
    assert (found.offload, found.gradient_checkpointing) == ("none", False)


def test_none_switches_a_preset_s_kernels_off() -> None:
    def kernels(**knobs: Any) -> tuple[str, ...]:
        found = advise(MODEL, card(24), catalog=FakeCatalog(), trainer="axolotl", method="lora", **knobs)
        return found.candidates[0].recipe.kernels

    assert kernels() == ("fused_lora",)
    assert kernels(kernels="none") == ()


def test_an_optimizer_in_backward_takes_the_batch_at_once() -> None:
    knobs: dict[str, Any] = {"trainer": "torchtune", "method": "full", "batch_size": 8}
    one = advise(MODEL, card(80), catalog=FakeCatalog(), optimizer_in_backward=True, **knobs).candidates[0]
    assert (one.recipe.micro_batch, one.recipe.gradient_accumulation) == (8, 1)


@pytest.mark.parametrize(
    ("trainer", "asked", "said"),
    [
        ("torchtune", "transformers-4.57", "is not in torchtune's step, whose models are its own; leave it out"),
        ("litgpt", "unsloth-2026.10", "is not what litgpt runs; give --trainer unsloth"),
        ("transformers", "unsloth-2025.11", "is not what transformers runs; give --trainer unsloth"),
    ],
)
def test_a_stack_that_a_trainer_cannot_have(trainer: str, asked: str, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        stack_of(find_trainer(trainer), (asked,))


def test_a_trainers_own_code_stays_beside_versions_that_are_asked_for() -> None:
    assert stack_of(find_trainer("unsloth"), ("peft-0.15",)) == ("unsloth-2026.10", "transformers-5.17", "peft-0.15")
    assert stack_of(find_trainer("unsloth"), ("unsloth-2025.11",)) == ("unsloth-2025.11",)
    assert stack_of(find_trainer("trl"), ("transformers-4.57",)) == ("transformers-4.57",)


def test_what_a_trainer_has_no_setting_for_is_said_and_never_proposed() -> None:
    question = read_question({"group_by_length": True, "gradient_checkpointing": False})
    (note,) = switched(find_trainer("litgpt"), question, "llama")[1]
    assert note.text == "--group-by-length: litgpt has no setting for it; it is computed as asked."
    assert "litgpt/data/base.py" in note.source
    note, _ = switched(find_trainer("litgpt", 4), question.fixing({"gpus": 4}), "llama")[1]
    assert note.text == "--no-gradient-checkpointing: litgpt has no setting for it; it is computed as asked."
    assert not switched(find_trainer("litgpt"), read_question({"offload": "none"}), "llama")[1]
    answer = advise("llama-3.2-1b", "rtx4090", 3000, trainer="litgpt")
    assert [row.method for row in answer.candidates] == ["full", "lora", "qlora"]
    lacking = {"gradient_checkpointing", "group_by_length", "pad_to_multiple_of"}
    assert not lacking & {change.knobs[0] for change in answer.prices}
    with pytest.raises(BadValue, match=r"--method is 'dora': litgpt 0\.5\.13 does not have it; --trainer transformers"):
        switched(find_trainer("litgpt"), read_question({"method": "dora"}), "llama")
