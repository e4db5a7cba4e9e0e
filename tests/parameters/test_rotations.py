"""OFT's adapters, counted by hand."""

from __future__ import annotations

import pytest

from advisor.advice.advise import advise
from advisor.catalog.models import find_model
from advisor.errors import BadValue
from advisor.parameters.buffers import buffer_bytes
from advisor.parameters.rotations import rotation_shape
from advisor.parameters.trained import Trained, trained_shapes
from advisor.specs import LinearShape, Recipe

LLAMA = find_model("llama-3.1-8b")


def test_a_row_for_each_block_of_inputs() -> None:
    recipe = Recipe(method="lora", variant="oft", target_modules=("q_proj", "down_proj"))
    assert trained_shapes(LLAMA, recipe) == (
        Trained(128, 496, 32, "float32", inner=True),
        Trained(448, 496, 32, "float32", inner=True),
    )
    assert buffer_bytes(LLAMA, recipe)[-1] == (8 * 496, 2 * 2 * 32)


@pytest.mark.parametrize(
    ("model", "knobs", "why"),
    [
        ("llama-3.1-8b", {"method": "dora"}, "not dora"),
        ("llama-3.1-8b", {"method": "lora", "dropout": 0.1}, "not dropout"),
        ("llama-3.1-8b", {"method": "qlora", "quant": "int8"}, "not int8"),
        ("llama-3.1-8b", {"method": "lora", "kernels": ("fused_lora",)}, "fused_lora has none"),
        ("gpt2", {"method": "lora"}, "Conv1D layers of gpt2"),
    ],
)
def test_what_is_not_turned(model: str, knobs: dict[str, object], why: str) -> None:
    with pytest.raises(BadValue, match=why):
        trained_shapes(find_model(model), Recipe.model_validate({"variant": "oft", **knobs}))


def test_blocks_must_fill_the_width() -> None:
    with pytest.raises(BadValue, match="no multiple of OFT's block of 32"):
        rotation_shape(LinearShape(name="q_proj", in_features=1000, out_features=8))


def test_it_is_asked_for_by_method() -> None:
    with pytest.raises(BadValue, match="--method lora or --method qlora"):
        advise("llama-8b", "24GB", variant="oft")
