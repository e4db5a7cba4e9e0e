from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.catalog import find_model
from advisor.catalog.trainers import SWITCHED, find_trainer
from advisor.errors import BadConfig, BadValue, UnknownName
from advisor.knobs import TRAINERS, idle_knobs
from advisor.specs import METHODS, Method, Recipe
from calibrate.options import STEP_KNOBS, config_of, methods_of, recipe_of, trained_as


def test_every_knob_of_the_recipe_has_a_flag() -> None:
    names = {knob.name for knob in STEP_KNOBS}
    assert set(Recipe.model_fields) - names == {"method", "gradient_accumulation"}


def test_defaults_are_the_recipes_own() -> None:
    assert recipe_of("qdora", {"rank": None}) == (Recipe(method="qdora", quant="nf4"), 512)
    plain = Recipe(method="dora", double_quant=False, kbit_upcast=False)
    assert recipe_of("dora", {"rank": None}) == (plain, 512)


@pytest.mark.parametrize(("method", "quant"), [("full", "none"), ("lora", "none"), ("qlora", "nf4"), ("qdora", "nf4")])
def test_quantized_methods_get_nf4(method: str, quant: str) -> None:
    assert recipe_of(method, {})[0].quant == quant


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_sets_what_is_left_open(trainer: str, method: Method) -> None:
    values = find_trainer(trainer).values(method)
    sets = {name: value for name, value in values.items() if name not in (*idle_knobs(method), *SWITCHED)}
    recipe = recipe_of(method, {"loss": "full"}, trainer)[0]
    assert {name: getattr(recipe, name) for name in sets} == {**sets, "loss": "full"}
    plain = recipe_of(method, {})[0]
    assert {name for name in Recipe.model_fields if getattr(recipe, name) != getattr(plain, name)} <= {
        *sets,
        "magnitude_dtype",
    }


def test_flags_come_before_the_trainer() -> None:
    asked = {"base_dtype": "bfloat16", "gradient_checkpointing": False, "loss": "full"}
    recipe = recipe_of("lora", asked, "trl")[0]
    assert (recipe.base_dtype, recipe.gradient_checkpointing, recipe.dropout) == ("bfloat16", False, 0.05)


def test_a_trainers_own_loss_is_run_or_refused() -> None:
    assert recipe_of("lora", {}, "trl")[0].loss == "chunked"
    with pytest.raises(BadValue, match=r"--loss full to use the other knobs$"):
        recipe_of("lora", {}, "unsloth")
    with pytest.raises(UnknownName, match="trl, axolotl"):
        recipe_of("lora", {}, "tlr")


def test_methods() -> None:
    assert methods_of("all") == METHODS
    assert methods_of("qlora, lora,qlora") == ("qlora", "lora")
    assert methods_of("lora,all") == METHODS
    with pytest.raises(UnknownName, match="did you mean"):
        methods_of("lora,quora")


def test_config_by_name_alias_and_hub_id() -> None:
    config = config_of("llama-3.1-8b")
    assert (config["model_type"], config["hidden_size"]) == ("llama", 4096)
    assert config_of("LLaMA-8B") == config_of("meta-llama/Llama-3.1-8B") == config


def test_config_is_of_the_model_that_the_formula_gets() -> None:
    config, model = config_of("qwen2.5-0.5b"), find_model("qwen2.5-0.5b")
    assert (config["hidden_size"], config["num_hidden_layers"]) == (model.hidden_size, model.num_hidden_layers)


def test_config_from_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert config_of(str(tmp_path)) == config_of(str(tmp_path / "config.json")) == {"model_type": "mamba"}


def test_config_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig):
        config_of(str(tmp_path / "config.json"))
    with pytest.raises(BadConfig):
        config_of(str(tmp_path))
    with pytest.raises(UnknownName):
        config_of("")


@pytest.mark.parametrize("knobs", [{"kernels": "liger"}, {"offload": "activations"}])
def test_only_transformers_own_code_runs(knobs: dict[str, str]) -> None:
    with pytest.raises(BadValue, match="run transformers' own code"):
        recipe_of("lora", knobs)
    assert recipe_of("lora", {}, "axolotl")[0].kernels == ()


def test_a_classifier_is_traced_as_its_config_would_name_it() -> None:
    model, config = find_model("qwen3-0.6b"), config_of("qwen3-0.6b")
    assert trained_as(config, model) == config
    scored = trained_as(config, model.classifying(3))
    assert scored["architectures"] == ["ForSequenceClassification"]
    assert (scored["num_labels"], scored["pad_token_id"]) == (3, config.get("pad_token_id", 0))
