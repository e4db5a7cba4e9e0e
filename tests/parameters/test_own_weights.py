"""Which of a model's own weights a recipe trains, counted by hand."""

from __future__ import annotations

import pytest

from advisor.catalog.models import find_model
from advisor.errors import BadValue, UnknownName
from advisor.parameters.own_weights import (
    OuterTensor,
    OwnWeights,
    fails_quantized,
    frozen_groups,
    outer_tensors,
    own_weights,
    saveable_modules,
    trained_groups,
)
from advisor.parameters.trained import Trained, trained_shapes
from advisor.specs import Recipe
from tests.decoders.tiny import spec

LLAMA = find_model("llama-3.1-8b")  # 32 layers, untied
TIED = find_model("llama-3.2-1b")
TOKENS = (128_256, 4096)


def test_full_fine_tuning_trains_everything() -> None:
    assert own_weights(LLAMA, Recipe(method="full")) == OwnWeights(True, True, True, True, True, "bfloat16")


def test_adapters_alone_train_nothing_of_the_model() -> None:
    assert own_weights(LLAMA, Recipe(method="lora")) == OwnWeights(False, False, False, False, False, "bfloat16")


@pytest.mark.parametrize(
    ("knobs", "dtype"),
    [
        ({"method": "lora"}, "bfloat16"),
        ({"method": "qlora", "quant": "nf4"}, "float32"),
        ({"method": "qlora", "quant": "nf4", "kbit_upcast": False}, "bfloat16"),
        ({"method": "lora", "trained_dtype": "float32"}, "float32"),
    ],
)
def test_a_copy_has_the_dtype_of_what_it_copies(knobs: dict[str, object], dtype: str) -> None:
    recipe = Recipe.model_validate({"modules_to_save": ("lm_head",), **knobs})
    assert trained_shapes(LLAMA, recipe)[-1] == Trained(*TOKENS, 1, dtype)


def test_copies_of_a_tied_pair_are_two() -> None:
    recipe = Recipe(method="lora", modules_to_save=("embed_tokens", "lm_head"))
    assert trained_shapes(TIED, recipe)[-2:] == (Trained(128_256, 2048, 1, "bfloat16"),) * 2
    assert outer_tensors(TIED, recipe)[0] == OuterTensor((128_256, 2048), 1, "bfloat16", False)


def test_norms_are_those_of_all_layers_and_the_last() -> None:
    found = trained_shapes(LLAMA, Recipe(method="lora", modules_to_save=("norm",)))
    assert found[-3:] == (Trained(4096, 0, 1, "bfloat16"), *[Trained(4096, 0, 32, "bfloat16")] * 2)


def test_the_last_layers_alone() -> None:
    recipe = Recipe(method="full", trained_layers=4, modules_to_save=("lm_head",), trained_dtype="float32")
    assert trained_groups(LLAMA, recipe) == ((LLAMA, 4),)
    assert frozen_groups(LLAMA, recipe) == ((LLAMA, 28),)
    assert outer_tensors(LLAMA, recipe) == [
        OuterTensor(TOKENS, 1, "bfloat16", False),
        OuterTensor(TOKENS, 1, "float32", True),
        OuterTensor((4096,), 1, "bfloat16", False),
    ]
    assert trained_shapes(LLAMA, recipe)[:2] == (
        Trained(*TOKENS, 1, "float32"),
        Trained(4096, 4096, 4, "float32", inner=True),
    )


def test_adapters_on_the_last_layers() -> None:
    recipe = Recipe(method="lora", rank=8, trained_layers=3, target_modules=("q_proj", "lm_head"))
    assert trained_shapes(LLAMA, recipe) == (
        Trained(8, 4096, 3, "float32", inner=True),
        Trained(4096, 8, 3, "float32", inner=True),
    )


def test_names_are_those_of_the_models_modules() -> None:
    assert saveable_modules(LLAMA) == ("embed_tokens", "lm_head", "norm")
    assert saveable_modules(find_model("gpt2")) == ("wte", "lm_head")
    assert saveable_modules(find_model("pythia-1b")) == ("embed_in", "lm_head", "norm")


def test_a_tied_head_is_trained_by_the_name_of_the_embedding() -> None:
    found = own_weights(TIED, Recipe(method="full", trained_layers=2, modules_to_save=("embed_tokens",)))
    assert (found.embedding, found.head) == (True, True)
    with pytest.raises(BadValue, match="name that to train it"):
        own_weights(TIED, Recipe(method="full", trained_layers=2, modules_to_save=("lm_head",)))


@pytest.mark.parametrize(
    ("knobs", "error", "text"),
    [
        ({"method": "lora", "modules_to_save": ("wte",)}, UnknownName, "embed_tokens, lm_head, norm"),
        ({"method": "lora", "trained_layers": 33}, BadValue, "at most 32"),
        ({"method": "full", "trained_layers": 2, "modules_to_save": ("norm",)}, BadValue, "last layers"),
    ],
)
def test_what_a_model_does_not_have(knobs: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        own_weights(LLAMA, Recipe.model_validate(knobs))


def test_mamba_multiplies_by_a_weight_that_must_not_be_packed() -> None:
    assert "dt_proj's stored weight" in fails_quantized(spec("mamba"))
    assert fails_quantized(spec("falcon_mamba")) == fails_quantized(spec("jamba")) == ""
    with pytest.raises(BadValue, match=r"qlora.*fails on mamba"):
        own_weights(spec("mamba"), Recipe(method="qlora", quant="nf4"))
