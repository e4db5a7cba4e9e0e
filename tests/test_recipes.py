"""The one builder: what goes before what, and which defaults follow from others."""

from __future__ import annotations

import pytest

from advisor.errors import InputError
from advisor.knobs import RECIPE_KNOBS, idle_knobs
from advisor.recipes import build_recipe
from advisor.specs import METHODS, Method, Recipe


def test_fixed_goes_before_the_preset_and_that_before_defaults() -> None:
    recipe = build_recipe(
        "lora", {"rank": 4}, {"rank": 8, "dropout": 0.1}, {"rank": 2, "dropout": 0.2, "micro_batch": 3}
    )
    assert (recipe.rank, recipe.dropout, recipe.micro_batch) == (4, 0.1, 3)


def test_a_default_stays_where_a_knob_means_nothing() -> None:
    assert build_recipe("full", {"rank": 4}, None, {"rank": 64}).rank == 64


def test_a_base_that_only_a_checkpoint_has_is_not_prepared() -> None:
    assert build_recipe("qlora", {"quant": "gptq"}).quant_group == 128
    assert build_recipe("qlora", {"quant": "hqq", "quant_bits": 2}).quant_group == 64
    assert build_recipe("qlora", {"quant": "fp8"}).kbit_upcast is False
    assert build_recipe("qlora", {"quant": "fp8", "kbit_upcast": True}).kbit_upcast is True
    assert build_recipe("qlora", {"quant": "gptq", "kbit_upcast": True}).kbit_upcast is False
    assert build_recipe("qlora", {"quant": "awq"}, {"base_dtype": "bfloat16"}).base_dtype == "float16"
    with pytest.raises(InputError, match="quant_bits is 5, but a gptq base has 2, 3, 4, 8"):
        build_recipe("qlora", {"quant": "gptq", "quant_bits": 5})


def test_what_follows_from_other_knobs() -> None:
    assert build_recipe("lora", {"rank": 4}).alpha == 8.0
    assert build_recipe("dora", {"adapter_dtype": "bfloat16"}).magnitude_dtype == "bfloat16"
    assert build_recipe("qlora", {}) == Recipe(method="qlora", quant="nf4")
    assert build_recipe("qlora", {"quant": "int8"}).double_quant is False
    assert build_recipe("lora", {}).kbit_upcast is False


@pytest.mark.parametrize("method", METHODS)
def test_what_means_nothing_is_left_out(method: Method) -> None:
    given = {"rank": 4, "dropout": 0.1, "magnitude_dtype": "bfloat16", "quant": "fp4", "kbit_upcast": False}
    recipe, plain = build_recipe(method, given), build_recipe(method, {})
    for name in given:
        assert (getattr(recipe, name) == getattr(plain, name)) == (name in idle_knobs(method))


@pytest.mark.parametrize("method", METHODS)
def test_idle_knobs_are_knobs_of_a_recipe(method: Method) -> None:
    idle = idle_knobs(method, "int8", gradient_checkpointing=False)
    assert set(idle) <= set(RECIPE_KNOBS)
    assert "reentrant" in idle
    assert "double_quant" in idle
    assert "reentrant" not in idle_knobs(method)
