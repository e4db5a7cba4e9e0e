"""Trainer presets: what the files say is what is loaded, and a damaged file is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.answer import Advice
from advisor.catalog.data import data_folder
from advisor.catalog.index import trainer_index_text
from advisor.catalog.trainers import DEFAULT_TRAINER, all_trainers, find_trainer, preset_from_toml, trainer_named
from advisor.errors import BadConfig, UnknownName
from advisor.knobs import BY_NAME, TRAINERS, idle_knobs, read_value
from advisor.specs import METHODS, Recipe

FOLDER = data_folder("trainers")
GOOD = """
name = "trl"
version = "1.0"
title = "a trainer"
traced = true
[[knob]]
name = "autocast"
value = true
source = "its code"
"""


def ask(**knobs: Any) -> Advice:
    return advise("llama-3.2-1b", "rtx4090", 3000, **knobs)


def test_the_index_says_what_the_files_say() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(TRAINERS)
    assert (FOLDER / "index.json").read_text(encoding="utf-8") == trainer_index_text(FOLDER)


def test_loaded_presets_are_the_files() -> None:
    for preset in all_trainers():
        text = (FOLDER / f"{preset.name}.toml").read_text(encoding="utf-8")
        assert preset == preset_from_toml(text, preset.name)
        assert len(preset.knobs) == text.count("[[knob]]")
        assert len(preset.switches) == text.count("[[switch]]")
        assert len(preset.lacks) == text.count("[[lack]]")
        assert len(preset.knobs) + len(preset.switches) + len(preset.lacks) == text.count("\nsource = ")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_knob_has_a_source_that_names_a_version_and_a_file(trainer: str) -> None:
    preset = find_trainer(trainer)
    assert len(preset.knobs) >= 7
    assert [preset.name for preset in all_trainers() if preset.traced] == ["transformers", "trl"]
    for knob in preset.knobs:
        assert ".py" in knob.source or ".yaml" in knob.source, knob
        assert read_value(knob.name, knob.value) == knob.value
    for method in METHODS:
        values = preset.values(method)
        quant = {"quant": "nf4"} if method.startswith("q") else {}
        assert Recipe(method=method, **quant, **values).method == method  # type: ignore[arg-type]


def test_what_trl_is_known_for() -> None:
    trl = find_trainer("TRL ")
    assert trl.values("qlora")["adapter_dtype"] == "bfloat16"
    assert trl.values("lora")["adapter_dtype"] == "float32"
    assert trl.values("qdora")["magnitude_dtype"] == "float32"
    assert trl.values("qlora")["kbit_upcast"] is False
    assert (trl.values("full")["loss"], trl.values("full")["base_dtype"]) == ("chunked", "float32")
    assert find_trainer("transformers").values("qlora")["kbit_upcast"] is True


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("swift", "ms-swift"),
        ("MS_SWIFT", "ms-swift"),
        ("lit-gpt", "litgpt"),
        ("nemo", "nemo-automodel"),
        ("open_instruct", "open-instruct"),
    ],
)
def test_other_spellings(word: str, name: str) -> None:
    assert find_trainer(word).name == trainer_named(word) == name
    assert trainer_named("axolotle") == ""


def test_presets_point_at_stacks() -> None:
    stacks = {preset.name: preset.stack for preset in all_trainers() if preset.stack}
    assert {"torchtune": ("torchtune-0.6",), "litgpt": ("litgpt-0.5",)}.items() <= stacks.items()
    assert find_trainer("trl").stack == ()
    assert ask(trainer="litgpt").candidates[0].evidence.stack.startswith("litgpt 0.5, ")


def test_an_unknown_trainer() -> None:
    with pytest.raises(UnknownName, match="did you mean"):
        find_trainer("axolotle")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "trl"', "name = ", "not TOML"),
        ('name = "trl"', 'name = "mine"', "known: transformers, trl"),
        ('version = "1.0"', "", "version is None"),
        ("traced = true", 'traced = "yes"', "give true or false"),
        ("traced = true", "traced = true\ndiffers = 3", "give a list of strings"),
        ("traced = true", "traced = true\ntrased = 1", "unknown key 'trased'"),
        ("[[knob]]", "[knob]", "no [[knob]] tables"),
        ('name = "autocast"', 'name = "autocats"', "not a knob of a recipe"),
        ('name = "autocast"', 'name = "examples"', "not a knob of a recipe"),
        ("value = true", "value = 3", "--autocast"),
        ("value = true", "value = true\nwhy = 1", "unknown key 'why'"),
        ("value = true", 'value = true\nmethods = ["lara"]', "methods of autocast"),
        ('source = "its code"', 'source = ""', "has no source"),
        ("value = true", 'value = true\ncards = "two"', "cards is 'two'; give 'one' or 'several'"),
        (
            'source = "its code"',
            'source = "x"\n[[knob]]\nname = "autocast"\nvalue = false\ncards = "one"\nsource = "y"',
            "set twice",
        ),
        ('source = "its code"', 'source = "x"\n[[knob]]\nname = "autocast"\nvalue = false\nsource = "y"', "set twice"),
        ('name = "autocast"\nvalue = true', 'name = "rank"\nvalue = 8', "names, switches and fractions only"),
        (
            'name = "autocast"\nvalue = true',
            'name = "pad_to_multiple_of"\nvalue = 8\nmethods = ["lora"]',
            "about rows, not about a method",
        ),
    ],
)
def test_a_damaged_file_is_one_line(old: str, new: str, words: str) -> None:
    assert preset_from_toml(GOOD, "trl.toml").name == "trl"
    with pytest.raises(BadConfig) as caught:
        preset_from_toml(GOOD.replace(old, new), "trl.toml")
    message = str(caught.value)
    assert words in message
    assert message.startswith("trl.toml: ")
    assert "\n" not in message


def test_a_knob_may_depend_on_the_number_of_cards() -> None:
    other = '\n[[knob]]\nname = "autocast"\nvalue = false\ncards = "several"\nsource = "y"\n'
    preset = preset_from_toml(GOOD.replace("value = true", 'value = true\ncards = "one"') + other, "trl.toml")
    assert [preset.on(gpus).values("lora") for gpus in (1, 2, 8)] == [{"autocast": gpus == 1} for gpus in (1, 2, 8)]
    ways = {one.name: [find_trainer(one.name, gpus) for gpus in (1, 8)] for one in all_trainers()}
    assert {name for name, (alone, shared) in ways.items() if alone != shared} == {"torchtune", "litgpt"}
    for alone, shared in ways.values():
        assert alone.stack == shared.stack
        for method in shared.methods:
            quant = {"quant": "nf4"} if method.startswith("q") else {}
            values: dict[str, Any] = quant | shared.values(method)
            assert Recipe(method=method, **values).optimizer == values.get("optimizer", "adamw")


def test_torchtunes_distributed_recipes_and_litgpts_checkpointing() -> None:
    alone, shared = (find_trainer("torchtune", gpus) for gpus in (1, 2))
    assert [one.values("full")["optimizer"] for one in (alone, shared)] == ["paged_adamw_8bit", "adamw"]
    assert "gradient_checkpointing" not in shared.values("lora")
    assert alone.values("lora")["gradient_checkpointing"] is shared.values("full")["gradient_checkpointing"] is True
    alone, shared = (find_trainer("litgpt", gpus) for gpus in (1, 2))
    assert [one.values("lora")["gradient_checkpointing"] for one in (alone, shared)] == [False, True]
    assert (alone.methods, shared.methods) == (("full", "lora", "qlora"), ("full", "lora"))


def test_the_default_is_transformers_and_said() -> None:
    answer = ask()
    assert answer.trainer.name == DEFAULT_TRAINER == ask(trainer="transformers").trainer.name
    assert answer.trainer.version == "5.23.0"
    assert answer.trainer.traced
    assert answer.candidates == ask(trainer="transformers").candidates


@pytest.mark.parametrize("trainer", TRAINERS)
def test_recipes_have_what_the_trainer_sets(trainer: str) -> None:
    answer = ask(trainer=trainer)
    assert answer.trainer.name == trainer
    assert set(answer.trainer.knobs).isdisjoint({*answer.chosen, *answer.fixed})
    for row in answer.candidates:
        for name, value in find_trainer(trainer).values(row.method).items():
            assert name in idle_knobs(row.method) or getattr(row.recipe, name) == value, name


def test_what_the_user_fixes_goes_before_the_preset() -> None:
    answer = ask(trainer="trl", base_dtype="bf16", gradient_checkpointing=False, adapter_dtype="fp32")
    assert {row.recipe.base_dtype for row in answer.candidates} == {"bfloat16"}
    assert {row.recipe.gradient_checkpointing for row in answer.candidates} == {False}
    assert {"base_dtype", "gradient_checkpointing", "adapter_dtype"}.isdisjoint(answer.trainer.knobs)
    assert "loss" in answer.trainer.knobs


def test_a_card_without_bf16_gets_fp16_from_trainers_that_take_bf16() -> None:
    answer = advise("llama-3.2-1b", "t4", 3000, trainer="unsloth", method="lora")
    assert answer.candidates[0].recipe.base_dtype == "float16"


def test_presets_set_recipes_and_how_rows_become_micro_batches() -> None:
    names = {knob.name for preset in all_trainers() for knob in preset.knobs}
    assert {name for name in names if BY_NAME[name].home != "recipe"} == {
        "max_pixels",
        "packing_strategy",
        "pad_to_multiple_of",
        "padding",
    }
    assert find_trainer("axolotl").collator() == {"pad_to_multiple_of": 64, "packing_strategy": "varlen"}
    assert find_trainer("transformers").collator() == {}


def test_a_trainers_collator_shapes_the_rows_unless_a_flag_does() -> None:
    assert ask(trainer="axolotl").workload.pad_to_multiple_of == 64
    assert ask(trainer="axolotl", pad_to_multiple_of=8).workload.pad_to_multiple_of == 8
    packed = ask(trainer="trl", packing=True)
    assert packed.workload.packing_strategy == "position_ids"
    assert "packing_strategy" in packed.trainer.knobs


def test_no_file_names_a_folder_of_this_machine() -> None:
    for path in sorted(Path(FOLDER).glob("*.toml")):
        assert "/tmp" not in path.read_text(encoding="utf-8")
