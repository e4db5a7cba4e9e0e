"""quantization_config of strangers: each method, odd lists of modules, and nonsense."""

from __future__ import annotations

import random
from typing import Any

import pytest

from advisor.catalog.config_json import model_from_config
from advisor.checkpoints import Checkpoint
from advisor.errors import BadConfig
from tests.catalog.test_config_json import attempt
from tests.hostile import mutated

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}
MIXTURE = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
GOOD: dict[str, dict[str, Any]] = {
    "nf4": {**NF4, "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp"]},
    "int8": {"load_in_8bit": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "modules_to_not_convert": None},
    "hqq": {
        "quant_method": "hqq",
        "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}},
        "skip_modules": ["lm_head"],
    },
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
    "compressed": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
}


def read(config: object, model: dict[str, Any] = LLAMA) -> Checkpoint | None:
    """The checkpoint of a config.json with this quantization_config."""
    return model_from_config({**model, "quantization_config": config}, "tiny", "config.json").checkpoint


@pytest.mark.parametrize(
    ("name", "quant", "bits", "group"),
    [
        ("nf4", "nf4", 4, 0),
        ("int8", "int8", 4, 0),
        ("gptq", "gptq", 4, 64),
        ("awq", "awq", 4, 128),
        ("hqq", "hqq", 4, 64),
        ("fp8", "fp8", 8, 128),
        ("mxfp4", "none", 4, 0),
        ("compressed", "none", 4, 0),
    ],
)
def test_each_method_is_read(name: str, quant: str, bits: int, group: int) -> None:
    found = read(GOOD[name])
    assert found is not None
    assert (found.quant, found.bits, found.group) == (quant, bits, group)
    assert found.unknown == ()


def test_without_keys_bitsandbytes_stores_fp4_on_one_level() -> None:
    found = read({"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert found is not None
    assert (found.quant, found.double_quant, found.whole) == ("fp4", False, ())
    assert read({"quant_method": "bitsandbytes"}) is None


def test_modules_in_16_bits_are_found_layer_by_layer() -> None:
    skipped = [
        *("lm_head", "vision_tower.encoder.layers.0.mlp", "multi_modal_projector", "model.layers.0.mlp.down_proj"),
        *("model.layers.1.self_attn", "language_model.model.layers.2", "model.layers.40.mlp"),
    ]
    found = read({**NF4, "llm_int8_skip_modules": skipped})
    assert found is not None
    attention, mlp = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}
    assert [set(layer) for layer in found.whole] == [{"down_proj"}, attention, attention | mlp]
    everywhere = read({**NF4, "llm_int8_skip_modules": ["v_proj"]})
    assert everywhere is not None
    assert everywhere.whole == (("v_proj",),) * 3


def test_gptq_names_the_modules_that_it_stores() -> None:
    stored = [["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"], ["self_attn.o_proj"], ["mlp.up_proj"]]
    found = read({**GOOD["gptq"], "modules_in_block_to_quantize": stored})
    assert found is not None
    assert found.whole == (("gate_proj", "down_proj"),) * 3
    with pytest.raises(BadConfig, match="list of lists"):
        read({**GOOD["gptq"], "modules_in_block_to_quantize": ["q_proj"]})


def test_a_pattern_is_said_not_to_be_known() -> None:
    found = read({**GOOD["fp8"], "modules_to_not_convert": ["re:.*self_attn.*"]})
    assert found is not None
    assert "self_attn" in found.unknown[0]


def test_the_config_of_a_text_tower_and_an_older_key_are_read() -> None:
    outer = {"model_type": "gemma3", "text_config": {**LLAMA, "model_type": "gemma3_text"}}
    spec = model_from_config({**outer, "quantization_config": GOOD["nf4"]}, "tiny", "config.json")
    assert spec.checkpoint is not None
    inner = {"model_type": "gemma3", "text_config": {**outer["text_config"], "quantization_config": GOOD["int8"]}}
    assert model_from_config(inner, "tiny", "config.json").checkpoint is not None
    old = model_from_config({**LLAMA, "compression_config": GOOD["compressed"]}, "tiny", "config.json")
    assert old.checkpoint is not None


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ([], "quantization_config"),
        ("gptq", "quantization_config"),
        ({}, "quant_method"),
        ({"quant_method": ["gptq"]}, "quant_method"),
        ({"quant_method": "torchao"}, "quant_method"),
        ({"quant_method": "aqlm"}, "quant_method"),
        ({"quant_method": "nvfp4"}, "quant_method"),
        ({"quant_method": "modelopt"}, "quant_method"),
        ({"quant_method": "gguf"}, "quant_method"),
        ({"load_in_4bit": 1}, "load_in_4bit"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "load_in_8bit"),
        ({**NF4, "bnb_4bit_quant_type": "nf5"}, "bnb_4bit_quant_type"),
        ({**NF4, "llm_int8_skip_modules": {"a": 1}}, "llm_int8_skip_modules"),
        ({**NF4, "llm_int8_skip_modules": [["lm_head"]]}, "llm_int8_skip_modules"),
        ({"quant_method": "gptq", "bits": [4]}, "bits"),
        ({"quant_method": "gptq", "bits": 5}, "bits"),
        ({"quant_method": "awq", "bits": 8}, "bits"),
        ({"quant_method": "awq", "version": "gemv"}, "version"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -2}, "group_size"),
        ({"quant_method": "hqq", "quant_config": {"self_attn.q_proj": {}}}, "weight_quant_params"),
        ({"quant_method": "fp8", "weight_block_size": [1, 128]}, "weight_block_size"),
        ({"quant_method": "fp8", "weight_block_size": [0]}, "weight_block_size"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_the_field(config: object, field: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read(config)
    assert field in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_mixture_in_fp8_is_dequantized() -> None:
    found = read(GOOD["fp8"], MIXTURE)
    assert found is not None
    assert found.dequantized
    assert found.method == "fp8"


@pytest.mark.parametrize("name", ["gptq", "awq", "hqq"])
def test_experts_of_a_mixture_in_other_forms_are_refused(name: str) -> None:
    with pytest.raises(BadConfig, match="experts of a mixture"):
        read(GOOD[name], MIXTURE)


def test_layers_beyond_the_model_and_huge_numbers_are_passed_over() -> None:
    found = read({**NF4, "llm_int8_skip_modules": ["model.layers." + "9" * 5000 + ".mlp", "layers.99999.mlp"]})
    assert found is not None
    assert found.whole == ()


@pytest.mark.parametrize("name", GOOD)
def test_mutated_files_are_read_or_refused(name: str) -> None:
    draw = random.Random(name)
    for _ in range(150):
        config = mutated({"quantization_config": GOOD[name]}, draw, ("bits", "quant_method", "load_in_4bit"))
        found = attempt(lambda config=config: model_from_config({**LLAMA, **config}, "tiny", "config.json"))
        assert found.isprintable() if isinstance(found, str) else found.checkpoint is None or found.checkpoint.stored
