"""Towers' parameters against the models that transformers builds, and what recipes do with them."""

from __future__ import annotations

import pytest

from advisor.catalog import find_model
from advisor.images import with_pictures
from advisor.parameters.modules import parameter_count
from advisor.parameters.towers import (
    tower_linears,
    tower_parameter_count,
    tower_parts,
    tower_quant,
    tower_shapes,
    tower_trained,
)
from advisor.parameters.trained import tower_trained_shapes, trained_shapes
from advisor.specs import ModelSpec, Recipe, VisionSpec, Workload

LORA = Recipe(method="lora")


def seeing(images: int = 0) -> tuple[ModelSpec, VisionSpec]:
    m = with_pictures(find_model("qwen2.5-vl-7b"), Workload(images=images))
    assert isinstance(m, ModelSpec)
    assert m.vision is not None
    return m, m.vision


@pytest.mark.parametrize(
    ("name", "tower"),
    [("qwen2.5-vl-7b", 676_550_144), ("gemma-3-4b", 419_816_304), ("llava-1.5-7b", 324_487_168)],
)
def test_the_count_of_a_tower(name: str, tower: int) -> None:
    m = find_model(name)
    assert m.vision is not None
    assert tower_parameter_count(m.vision) == tower
    assert parameter_count(m) - tower == parameter_count(m.model_copy(update={"vision": None}))
    elements = sum(shape.weight_count * times for shape, times in tower_linears(m.vision))
    assert 0 < elements < tower
    assert len(tower_shapes(m.vision)) == sum(map(len, tower_parts(m.vision)[2:5]))


def test_what_is_trained_whole() -> None:
    assert tower_trained(Recipe(method="full"))
    assert not tower_trained(Recipe(method="full", train_tower=False))
    assert not tower_trained(LORA)


def test_what_is_quantized() -> None:
    (_, v), qlora = seeing(), Recipe(method="qlora", quant="nf4")
    assert tower_quant(v, LORA, "qkv") == "none"
    assert tower_quant(v, qlora, "qkv") == "nf4"
    assert tower_quant(v, Recipe(method="qlora", quant="gptq"), "qkv") == "none"
    assert tower_quant(v, qlora.model_copy(update={"stack": ("unsloth-2026.10",)}), "qkv") == "none"
    last = find_model("gemma-4-31b").vision
    assert last is not None
    assert tower_quant(last, qlora, "embedding_projection") == "none"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_only_images_give_a_tower_gradients(method: str) -> None:
    recipe = Recipe(method=method)  # type: ignore[arg-type]
    (text, _), (images, _) = seeing(), seeing(1)
    own = tower_trained_shapes(text, recipe)
    assert own
    assert tower_trained_shapes(images, recipe) == own
    assert sorted(trained_shapes(images, recipe)) == sorted((*own, *trained_shapes(text, recipe)))
