"""Endings of names that say how a checkpoint is stored: none is dropped silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.catalog import find_model
from advisor.catalog.storage import DYNAMIC_GROWTH, read_ending
from advisor.checkpoints import Checkpoint
from advisor.errors import BadValue


def checkpoint_of(name: str) -> Checkpoint:
    """That of a model which the catalog knows by this name."""
    found = find_model(name).checkpoint
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "model", "quant", "bits", "group"),
    [
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "llama-3.1-8b", "nf4", 4, 0),
        ("unsloth/gemma-2b-it-bnb-4bit", "gemma-1-2b", "nf4", 4, 0),
        ("unsloth/Qwen3-14B-Base-unsloth-bnb-4bit", "qwen3-14b", "nf4", 4, 0),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-BNB-NF4-BF16", "llama-3.1-8b", "nf4", 4, 0),
        ("meta-llama/Llama-3.1-8B-bnb-8bit", "llama-3.1-8b", "int8", 4, 0),
        ("TheBloke/Llama-2-7B-GPTQ", "llama-2-7b", "gptq", 4, 128),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "qwen2.5-7b", "gptq", 8, 128),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", "llama-3.1-8b", "gptq", 4, 128),
        ("TechxGenus/Meta-Llama-3-8B-Instruct-AWQ", "llama-3-8b", "awq", 4, 128),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "llama-3.1-8b", "awq", 4, 128),
        ("Qwen/Qwen3-8B-HQQ", "qwen3-8b", "hqq", 4, 64),
        ("Qwen/Qwen3-8B-FP8", "qwen3-8b", "fp8", 8, 128),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-Dynamic", "llama-3.1-8b", "none", 4, 0),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "llama-3.1-8b", "none", 4, 0),
        ("openai/gpt-oss-20b-MXFP4", "gpt-oss-20b", "none", 4, 0),
        ("Qwen/Qwen3-30B-A3B-FP8", "qwen3-30b-a3b", "none", 4, 0),
        ("LLAMA-8B-GPTQ/", "llama-3.1-8b", "gptq", 4, 128),
    ],
)
def test_an_ending_is_what_the_checkpoint_holds(name: str, model: str, quant: str, bits: int, group: int) -> None:
    found = checkpoint_of(name)
    assert find_model(name).name == model
    assert (found.quant, found.bits, found.group) == (quant, bits, group)
    assert found.double_quant == (quant == "nf4")
    assert "/" in found.original  # the id of the same model in 16 bits


@pytest.mark.parametrize(
    ("name", "why", "instead"),
    [
        ("meta-llama/Llama-3.1-8B-GGUF", "a GGUF file is for inference", "take --model meta-llama/Llama-3.1-8B"),
        ("llama3.1:8b-q4_K_M", "a GGUF file is for inference", "take --model meta-llama/Llama-3.1-8B"),
        ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "a GGUF file", "--model meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("someone/own-model-q8_0-GGUF", "a GGUF file is for inference", "the id of the model that it was made from"),
        ("nvidia/Llama-3.3-70B-Instruct-NVFP4", "does not train on NVFP4", "--model meta-llama/Llama-3.3-70B-Instruct"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "ModelOpt", "--model meta-llama/Llama-3.1-8B-Instruct"),
        ("ISTA-DASLab/Meta-Llama-3-8B-AQLM-2Bit-1x16", "AQLM is not known", "--model meta-llama/Meta-Llama-3-8B"),
        ("mlx-community/Meta-Llama-3.1-8B-Instruct-4bit", "an MLX checkpoint", "--model meta-llama/"),
        ("01-ai/Yi-34B-Chat-4bits", "does not say in which format", "--model 01-ai/Yi-34B-Chat"),
        ("google/gemma-3-4b-it-qat", "does not say in which format", "--model google/gemma-3-4b-it"),
        ("Qwen/Qwen-7B-Chat-Int4", "does not say in which format", "config.json"),
        ("Qwen/Qwen3-30B-A3B-GPTQ-Int4", "the GPTQ experts of a mixture", "--model Qwen/Qwen3-30B-A3B"),
    ],
)
def test_what_nothing_trains_on_is_refused_in_one_line(name: str, why: str, instead: str) -> None:
    with pytest.raises(BadValue) as caught:
        find_model(name)
    text = str(caught.value)
    assert why in text
    assert instead in text
    assert "\n" not in text


def test_a_dynamic_checkpoint_is_an_interval_without_its_config() -> None:
    """The most that Unsloth states: 1.81 GB against 1.36 (https://unsloth.ai/blog/dynamic-4bit)."""
    found = checkpoint_of("unsloth/Qwen3-8B-unsloth-bnb-4bit")
    assert found.growth == DYNAMIC_GROWTH == pytest.approx(1.33, abs=0.005)
    assert "config.json" in found.unknown[0]


def test_a_dynamic_checkpoint_is_read_where_its_config_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name = tmp_path / "config.json", "unsloth/Qwen3-8B-unsloth-bnb-4bit"
    stored = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "llm_int8_skip_modules": ["model.layers.3.mlp"]}
    path.write_text(json.dumps({"model_type": "qwen3", "quantization_config": stored}))
    monkeypatch.setattr("advisor.catalog.hub.cached_file", lambda hub_id, file: path if hub_id == name else None)
    found = checkpoint_of(name)
    assert (found.growth, found.unknown, found.original) == (1, (), "Qwen/Qwen3-8B")
    assert found.whole[3] == ("down_proj", "gate_proj", "up_proj")


def test_the_catalogs_own_mxfp4_models_have_a_copy_in_16_bits() -> None:
    assert checkpoint_of("gpt-oss-20b").original == "unsloth/gpt-oss-20b-BF16"
    assert find_model("unsloth/gpt-oss-20b-BF16").checkpoint is None


def test_experts_that_bitsandbytes_stored_one_by_one_are_not_known() -> None:
    assert "experts" in checkpoint_of("unsloth/Qwen3-30B-A3B-bnb-4bit").unknown[0]


@pytest.mark.parametrize("name", ["llama-8b", "unsloth/gpt-oss-20b-BF16", "microsoft/bitnet-like", "Qwen/Qwen3-8B"])
def test_other_names_have_no_such_ending(name: str) -> None:
    assert read_ending(name) is None


def test_an_upload_that_is_built_otherwise_is_no_mirror() -> None:
    """Unsloth's Phi is in Llama's form: its config.json has to be asked for."""
    assert read_ending("unsloth/phi-4-unsloth-bnb-4bit") is not None
    with pytest.raises(Exception, match=r"unsloth/phi-4-unsloth-bnb-4bit"):
        find_model("unsloth/phi-4-unsloth-bnb-4bit", offline=True)


@pytest.mark.parametrize("name", ["-gguf", "a-", "-" * 4000, "x" * 4000 + "-gguf", "-aqlm" * 800, "-mlx" * 1000, "q4_"])
def test_odd_names_end_soon(name: str) -> None:
    found = read_ending(name)
    assert found is None or found.base
