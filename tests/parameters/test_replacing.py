"""Adapters in LoRA's place, counted by hand, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.catalog.models import find_model
from advisor.errors import BadValue
from advisor.parameters.buffers import buffer_bytes
from advisor.parameters.replacing import VERA_RANK, scales_input, targets_by_default
from advisor.parameters.trained import Trained, trained_shapes
from advisor.rates import learning_rate
from advisor.specs import Recipe

LLAMA = find_model("llama-3.1-8b")


def test_a_row_for_each_block_of_inputs() -> None:
    recipe = Recipe(method="lora", variant="oft", target_modules=("q_proj", "down_proj"))
    assert trained_shapes(LLAMA, recipe) == (
        Trained(128, 496, 32, "float32", inner=True),
        Trained(448, 496, 32, "float32", inner=True),
    )
    assert buffer_bytes(LLAMA, recipe)[-1] == (8 * 496, 2 * 2 * 32)


def test_a_vector_for_what_ia3_scales() -> None:
    recipe = Recipe(method="lora", variant="ia3", target_modules=targets_by_default(LLAMA, "ia3"))
    assert trained_shapes(LLAMA, recipe) == (
        Trained(1024, 1, 32, "float32", inner=True),
        Trained(1024, 1, 32, "float32", inner=True),
        Trained(1, 14_336, 32, "float32", inner=True),
    )
    assert scales_input("mlp.c_proj")
    assert not scales_input("attn.c_proj")


def test_two_vectors_and_shared_matrices_of_vera() -> None:
    recipe = Recipe(method="qlora", quant="nf4", variant="vera", rank=256, target_modules=("k_proj", "up_proj"))
    assert trained_shapes(LLAMA, recipe) == (
        Trained(1024, 0, 32, "float32"),
        Trained(256, 0, 32, "float32"),
        Trained(14_336, 0, 32, "float32"),
        Trained(256, 0, 32, "float32"),
    )
    assert buffer_bytes(LLAMA, recipe)[-2:] == [(4 * 256 * 4096, 1), (4 * 256 * 14_336, 1)]


@pytest.mark.parametrize(
    ("model", "knobs", "why"),
    [
        ("llama-3.1-8b", {"variant": "oft", "method": "dora"}, "not dora"),
        ("llama-3.1-8b", {"variant": "ia3", "method": "dora"}, "IA3 must be with lora or qlora.*not dora"),
        ("llama-3.1-8b", {"variant": "vera", "method": "qdora", "quant": "nf4"}, "not qdora"),
        ("llama-3.1-8b", {"variant": "oft", "dropout": 0.1}, "not dropout"),
        ("llama-3.1-8b", {"variant": "ia3", "dropout": 0.1}, "not dropout"),
        ("llama-3.1-8b", {"variant": "ia3", "trained_layers": 2}, "not trained layers"),
        ("llama-3.1-8b", {"variant": "oft", "method": "qlora", "quant": "int8"}, "not int8"),
        ("llama-3.1-8b", {"variant": "vera", "method": "qlora", "quant": "gptq"}, "not gptq"),
        ("llama-3.1-8b", {"variant": "oft", "kernels": ("fused_lora",)}, "fused_lora has none"),
        ("llama-3.1-8b", {"variant": "vera", "stack": ("torchtune-0.6",)}, "torchtune has none"),
        ("llama-3.1-8b", {"variant": "vera", "stack": ("peft-0.17",)}, "of peft 0.21 alone, and this stack has 0.17"),
        (
            "llama-3.1-8b",
            {"variant": "oft", "method": "qlora", "quant": "gptq", "stack": ("peft-0.18",)},
            "of peft 0.21 alone, and this stack has 0.18",
        ),
        ("gpt2", {"variant": "oft"}, "Conv1D layers of gpt2"),
        ("phi-3-mini", {"variant": "ia3"}, "peft 0.21 names no modules of phi3"),
        ("glm-4.5-air", {"variant": "vera"}, "MLP of glm-4.5-air: add --target-modules attention"),
        (
            "llama-3.1-8b",
            {"variant": "ia3", "method": "qlora", "quant": "nf4", "autocast": False, "kbit_upcast": False},
            "IA3 hands two dtypes to one product",
        ),
        (
            "llama-3.1-8b",
            {"variant": "ia3", "method": "qlora", "quant": "nf4", "attention": "flash", "kbit_upcast": False},
            "flash.*gets two dtypes from peft 0.21's IA3",
        ),
        (
            "llama-3.1-8b",
            {"variant": "vera", "method": "qlora", "quant": "int8", "autocast": False, "adapter_dtype": "bfloat16"},
            "VeRA hands two dtypes",
        ),
    ],
)
def test_what_is_refused(model: str, knobs: dict[str, object], why: str) -> None:
    with pytest.raises(BadValue, match=why):
        trained_shapes(find_model(model), Recipe.model_validate({"method": "lora", **knobs}))


@pytest.mark.parametrize("quant", ["none", "nf4", "awq"])
def test_oft_of_an_older_peft(quant: Any) -> None:
    method = "lora" if quant == "none" else "qlora"
    knobs = {"method": method, "quant": quant, "variant": "oft", "target_modules": ("q_proj",)}
    older, newer = (Recipe.model_validate({**knobs, "stack": stack}) for stack in (("peft-0.18",), ()))
    assert [(one.rows, one.columns, one.times) for one in trained_shapes(LLAMA, older)] == [(128, 496, 32)]
    if quant == "awq":
        with pytest.raises(BadValue, match="not awq"):
            trained_shapes(LLAMA, newer)


@pytest.mark.parametrize("variant", ["oft", "ia3", "vera"])
def test_they_are_asked_for_by_method(variant: str) -> None:
    with pytest.raises(BadValue, match="--method lora or --method qlora"):
        advise("llama-8b", "24GB", variant=variant)


def test_what_is_taken_where_nobody_says_it() -> None:
    assert targets_by_default(LLAMA) == ("all-linear",)
    assert targets_by_default(find_model("glm-4.5-air"), "vera") == ("attention",)
    advice = advise("llama-8b", "24GB", method="lora", variant="vera")
    recipe = advice.candidate("lora").recipe
    assert (recipe.rank, recipe.target_modules) == (VERA_RANK, ("all-linear",))
    assert advice.recommendation is not None
    assert (advice.recommendation.rank, advice.recommendation.learning_rate) == (256, 1e-3)
    scaled = advise("llama-8b", "24GB", method="qlora", variant="ia3")
    assert scaled.candidate("qlora").recipe.target_modules == ("k_proj", "v_proj", "down_proj")
    assert scaled.recommendation is not None
    assert scaled.recommendation.rank == 0


def test_rates_of_their_own() -> None:
    assert [learning_rate("lora", 8_000_000_000, one).value for one in ("plain", "oft", "ia3", "vera")] == [  # type: ignore[arg-type]
        2e-4,
        1e-4,
        1e-3,
        1e-3,
    ]


def test_ia3_scales_what_peft_scales() -> None:
    pytest.importorskip("peft")
    from peft.utils import constants

    from advisor.architectures.scaled import SCALED

    for architecture, (targets, reads) in SCALED.items():
        named = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[architecture]
        fed = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[architecture]
        if architecture == "mixtral":
            named, fed = [one for one in named if one != "w2"], []
        assert [one.removeprefix("mlp.") for one in targets] == [one.removeprefix("mlp.") for one in named]
        assert [one.removeprefix("mlp.") for one in fed] == [reads.removeprefix("mlp.")] * bool(reads)
