"""Checkpoints that are not in 16 bits: which methods are left, and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.answer import Advice
from advisor.errors import AdvisorError, BadValue
from advisor.terms import TermName

NF4, GPTQ, AWQ, FP8 = (
    "unsloth/Meta-Llama-3.1-8B-bnb-4bit",
    "TheBloke/Llama-2-7B-GPTQ",
    "TechxGenus/Meta-Llama-3-8B-Instruct-AWQ",
    "Qwen/Qwen3-8B-FP8",
)


def ask(model: str, gpu: str = "rtx4090", **knobs: Any) -> Advice:
    return advise(model, gpu, 3000, **knobs)


BASE = TermName.BASE_WEIGHTS


def said(answer: Advice) -> str:
    return " ".join(note.text for note in answer.notes if note.code == "checkpoint")


@pytest.mark.parametrize(
    ("model", "gpu", "methods"),
    [
        (NF4, "rtx4090", ["qlora", "qdora"]),
        ("meta-llama/Llama-3.1-8B-bnb-8bit", "rtx4090", ["qlora", "qdora"]),
        (GPTQ, "rtx4090", ["qlora"]),
        (AWQ, "rtx4090", ["qlora"]),
        (FP8, "rtx4090", ["qlora"]),
        (FP8, "rtx3090", ["full", "lora", "dora"]),
        ("openai/gpt-oss-20b-MXFP4", "h100", ["full", "lora", "dora"]),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic", "rtx4090", ["full", "lora", "dora"]),
        ("llama-8b", "rtx4090", ["full", "lora", "dora", "qlora", "qdora"]),
    ],
)
def test_what_can_be_done_with_a_checkpoint_is_compared(model: str, gpu: str, methods: list[str]) -> None:
    answer = ask(model, gpu)
    assert [row.method for row in answer.candidates] == methods
    assert bool(said(answer)) == (model != "llama-8b")


def test_a_recipe_is_on_the_base_that_the_checkpoint_holds() -> None:
    recipe = ask(NF4).candidate("qlora").recipe
    assert (recipe.quant, recipe.double_quant, recipe.kbit_upcast) == ("nf4", True, True)
    recipe = ask(GPTQ).candidate("qlora").recipe
    assert (recipe.quant, recipe.quant_bits, recipe.quant_group, recipe.kbit_upcast) == ("gptq", 4, 128, False)
    recipe = ask(AWQ, kbit_upcast=True).candidate("qlora").recipe
    assert (recipe.quant, recipe.base_dtype, recipe.kbit_upcast) == ("awq", "float16", True)
    assert ask(FP8).candidate("qlora").recipe.quant == "fp8"


def test_lora_on_a_quantized_checkpoint_is_qlora() -> None:
    answer = ask(NF4, method="lora")
    assert [row.method for row in answer.candidates] == ["qlora"]
    assert answer.recommendation is not None
    assert "LoRA on it is QLoRA, which is what is computed. In 16 bits: --model meta-llama/Meta-Llama-3.1-8B." in said(
        answer
    )
    assert ask(NF4, method="dora").candidates[0].method == "qdora"


@pytest.mark.parametrize(
    ("model", "knobs", "words"),
    [
        (NF4, {"method": "full"}, "adapters only; in 16 bits: --model meta-llama/Meta-Llama-3.1-8B"),
        (NF4, {"quant": "int8"}, "is stored as bitsandbytes nf4"),
        (NF4, {"double_quant": False}, "--double-quant is False"),
        (GPTQ, {"method": "dora"}, "peft 0.21 refuses DoRA on a GPTQ base"),
        (GPTQ, {"method": "qdora"}, "tuners/lora/gptq.py"),
        (AWQ, {"method": "qdora"}, "tuners/lora/awq.py"),
        (AWQ, {"base_dtype": "bfloat16"}, "transformers 5.23 casts an AWQ base to it"),
        (FP8, {"method": "qdora"}, "FP8 weight itself"),
        ("Qwen/Qwen3-8B-HQQ", {}, "transformers 5.23 does not load HQQ checkpoints"),
        ("openai/gpt-oss-20b-MXFP4", {"method": "qlora"}, "does not quantize a checkpoint stored as MXFP4 once more"),
        ("openai/gpt-oss-20b-MXFP4", {"quant": "nf4"}, "--quant is 'nf4'"),
        ("qwen3-8b", {"quant": "hqq"}, "--stack transformers-4.57 has it"),
        ("qwen3-8b", {"quant": "gptq", "method": "qdora"}, "refuses DoRA"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(model: str, knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        ask(model, **knobs)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fp8_of_cards_without_its_products_is_refused_as_a_choice() -> None:
    with pytest.raises(AdvisorError, match="below compute capability"):
        ask("qwen3-8b", "rtx3090", quant="fp8")
    assert ask("qwen3-8b", "rtx4090", quant="fp8", method="qlora").candidates[0].recipe.quant == "fp8"


def test_hqq_is_answered_for_a_transformers_that_loads_it() -> None:
    answer = ask("Qwen/Qwen3-8B-HQQ", stack="transformers-4.57")
    assert [row.method for row in answer.candidates] == ["qlora", "qdora"]
    assert answer.candidate("qlora").recipe.quant_group == 64


def test_how_to_load_it_and_what_is_not_known_is_said() -> None:
    assert "auto_trainable" in said(ask(GPTQ))
    assert "Mxfp4Config(dequantize=True)" in said(ask("openai/gpt-oss-20b-MXFP4", "h100"))
    dynamic = ask("unsloth/Qwen3-8B-unsloth-bnb-4bit")
    assert "33% more weights" in said(dynamic)
    assert {row.verdict for row in dynamic.candidates} == {"tight"}


def test_other_methods_are_proposed_only_where_they_run() -> None:
    """Nothing fits: LoRA on a 16-bit base is none of the changes of a 4-bit checkpoint."""
    answer = ask("unsloth/Meta-Llama-3.1-70B-bnb-4bit", "8GB")
    assert answer.recommendation is None
    assert not any("--method" in change.flags for change in answer.alternatives)


def test_a_folder_with_its_own_config_is_read(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 1000,
        "quantization_config": {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": ["lm_head", "model.layers.0", "model.layers.1"],
        },
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    half = ask(str(path)).candidate("qlora").memory
    del config["quantization_config"]["llm_int8_skip_modules"]  # type: ignore[attr-defined]
    path.write_text(json.dumps(config))
    none = ask(str(path)).candidate("qlora").memory
    left = 2 * (4 * 512 * 512 + 3 * 512 * 1024)  # weights of two layers: in fp32 after k-bit preparation, not in 4 bits
    assert half.bytes_of(BASE) - none.bytes_of(BASE) == left * 4 - left // 2


def test_a_mixture_in_fp8_is_answered_in_16_bits_and_says_how_it_is_loaded() -> None:
    """DeepSeek V3 is published so."""
    answer = ask("deepseek-v3", "b200")
    assert [row.method for row in answer.candidates] == ["full", "lora", "dora"]
    notes = " ".join(note.text for note in answer.notes)
    assert "stored as FP8, squares of 128, and dequantized to 16 bits" in notes
    assert "FineGrainedFP8Config(dequantize=True)" in notes


@pytest.mark.parametrize("quant", ["awq", "gptq", "hqq", "fp8"])
def test_experts_in_forms_that_are_not_mirrored_are_refused(quant: str) -> None:
    with pytest.raises(BadValue) as caught:
        ask("mixtral-8x7b", "h100", quant=quant, stack="transformers-4.57")
    assert "experts of a mixture is not known here: take nf4, or leave it out" in str(caught.value)
