from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.catalog import find_model
from advisor.errors import BadConfig, UnknownName
from advisor.specs import METHODS, Recipe
from calibrate.options import STEP_KNOBS, config_of, methods_of, recipe_of


def test_every_knob_of_the_recipe_has_a_flag() -> None:
    names = {knob.name for knob in STEP_KNOBS}
    assert set(Recipe.model_fields) - names == {"method", "gradient_accumulation"}


def test_defaults_are_the_recipes_own() -> None:
    assert recipe_of("dora", {"rank": None}) == (Recipe(method="dora"), 512)


@pytest.mark.parametrize(("method", "quant"), [("full", "none"), ("lora", "none"), ("qlora", "nf4"), ("qdora", "nf4")])
def test_quantised_methods_get_nf4(method: str, quant: str) -> None:
    assert recipe_of(method, {})[0].quant == quant


def test_methods() -> None:
    assert methods_of("all") == METHODS
    assert methods_of("qlora, lora,qlora") == ("qlora", "lora")
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
