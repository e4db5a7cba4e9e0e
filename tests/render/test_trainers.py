"""`advise trainers`, and the line of an answer that says which trainer was assumed."""

from __future__ import annotations

import io
import json

import pytest
from click.testing import CliRunner, Result

from advisor import cli as door
from advisor.advice.advise import advise
from advisor.catalog.trainers import all_trainers, find_trainer
from advisor.knobs import TRAINERS
from advisor.render.answer import render

JOB = ("--model", "llama-3.2-1b", "--gpu", "rtx4090", "--examples", "3000")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(door.cli, list(arguments))


def test_the_list() -> None:
    result = run("trainers")
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.split()[0] in TRAINERS}
    assert list(rows) == list(TRAINERS)
    for preset in all_trainers():
        assert rows[preset.name][1:3] == [preset.version, "yes" if preset.traced else "no"]
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("trainer", TRAINERS)
def test_one_trainer_with_every_source(trainer: str) -> None:
    result = run("trainers", trainer)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for knob in next(one for one in all_trainers() if one.name == trainer).knobs:
        assert " ".join(knob.source.split()) in text
    assert ("Traced: yes" in text) is find_trainer(trainer).traced


def test_what_holds_on_some_numbers_of_cards_says_so() -> None:
    text = " ".join(run("trainers", "torchtune").stdout.split())
    assert "optimizer paged_adamw_8bit (on one card, full)" in text
    assert "optimizer adamw (on several cards, full)" in text
    assert "qlora (on several cards)" in " ".join(run("trainers", "litgpt").stdout.split())


def test_an_unknown_trainer_is_one_line() -> None:
    for arguments in (("trainers", "axolotle"), (*JOB, "--trainer", "axolotle")):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "did you mean" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def shown(**knobs: object) -> str:
    file = io.StringIO()
    render(advise("llama-3.2-1b", "rtx4090", 3000, **knobs), file, explain=True)
    return " ".join(file.getvalue().split())


def test_an_answer_says_which_trainer_and_what_it_set() -> None:
    assert "trainer transformers 5.23.0: adapter-dtype float32" in shown(method="lora")
    text = shown(trainer="trl", method="qlora", base_dtype="bfloat16")
    assert "trainer trl 1.16.0: adapter-dtype bfloat16, kbit-upcast off" in text
    text = shown(trainer="unsloth", method="lora")
    assert "(not traced: see `advise trainers unsloth`)" in text
    assert "We have not traced unsloth's own step" in text
    assert "magnitude-dtype float32" in shown(trainer="trl", method="qdora")


def test_json_carries_the_trainer() -> None:
    found = json.loads(run(*JOB, "--trainer", "trl", "--json").stdout)["trainer"]
    assert (found["name"], found["version"], found["traced"]) == ("trl", "1.16.0", True)
    assert "gradient_checkpointing" in found["knobs"]


def test_trls_fp32_base_is_a_warning_and_its_loss_is_none() -> None:
    text = shown(trainer="trl", method="lora")
    assert "fp32, trl's default, costs LoRA" in text
    assert "ADV109" not in text
    assert "ADV103" not in shown(trainer="trl", method="lora", base_dtype="bfloat16")


def test_nothing_fits_says_which_default_stands_in_the_way() -> None:
    undone = {
        "trl": "--base-dtype bfloat16: LoRA then",
        "litgpt": "--base-dtype bfloat16 --target-modules attention together: LoRA then",
    }
    for trainer, words in undone.items():
        answer = advise("llama-3.1-8b", "rtx4090", 3000, trainer=trainer, method="lora")
        assert answer.recommendation is None
        assert any(reason.text.startswith(words) for reason in answer.alternatives), trainer
