"""config.json files of strangers: right, odd and hostile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.config_json import (
    MAX_FILE_BYTES,
    decoder_config,
    model_from_config,
    parse_config,
    read_config,
)
from advisor.catalog.families import all_families
from advisor.errors import AdvisorError, BadConfig, UnsupportedArchitecture
from advisor.parameters.modules import layer_linears, parameter_count
from advisor.specs import ModelSpec

T = TypeVar("T")

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}


def spec_of(**config: Any) -> ModelSpec:
    """The spec of a config with these keys."""
    return model_from_config(config, "tiny", "config.json")


def attempt(call: Callable[[], T]) -> T | str:
    """What `call` returns, or the text of the AdvisorError that it raises."""
    try:
        return call()
    except AdvisorError as error:
        return str(error)


def refusal(**config: Any) -> str:
    """The one line with which a config is refused."""
    with pytest.raises(AdvisorError) as caught:
        spec_of(**config)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 400
    assert text.startswith("config.json: ")
    return text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", -4096),
        ("hidden_size", 0),
        ("hidden_size", 64.0),
        ("hidden_size", "64"),
        ("hidden_size", True),
        ("hidden_size", float("nan")),
        ("hidden_size", None),
        ("hidden_size", [64]),
        ("num_hidden_layers", 10**18),
        ("num_hidden_layers", -1),
        ("vocab_size", 10**8),
        ("num_attention_heads", 7),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 0),
        ("intermediate_size", {}),
        ("head_dim", 0),
        ("head_dim", 15),
        ("tie_word_embeddings", "false"),
        ("attention_bias", 1),
        ("hidden_act", 3),
        ("max_position_embeddings", 10**12),
        ("model_type", 5),
        ("model_type", None),
        ("attention_dropout", 2),
        ("attention_dropout", 1),
        ("attention_dropout", float("nan")),
    ],
)
def test_a_bad_field_is_named(field: str, value: object) -> None:
    assert field in refusal(**{**LLAMA, field: value})


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"model_type": "gpt2", "n_embd": 64, "n_head": 5}, "n_head"),
        ({"model_type": "gpt2", "n_embd": 64, "hidden_size": 128, "n_head": 4}, "hidden_size"),
        ({"model_type": "gpt2", "n_embd": 9_000_000, "n_head": 4}, "intermediate_size"),
        ({"model_type": "falcon", "hidden_size": 64, "num_attention_heads": 4, "num_kv_heads": 3}, "num_kv_heads"),
        ({**LLAMA, "model_type": "gemma2", "layer_types": ["full_attention"]}, "layer_types"),
        ({**LLAMA, "model_type": "gemma3", "text_config": 3}, "text_config"),
        ({**LLAMA, "model_type": "gemma3", "text_config": {"hidden_size": -1}}, "text_config.hidden_size"),
        ({**LLAMA, "model_type": "smollm3", "no_rope_layers": [1, 2]}, "no_rope_layers"),
        (
            {**LLAMA, "model_type": "phi3", "rope_parameters": {"partial_rotary_factor": -1}},
            "rope_parameters.partial_rotary_factor",
        ),
        ({**LLAMA, "model_type": "phi3", "rope_parameters": 7}, "rope_parameters"),
        ({"model_type": "gemma4_text", "num_kv_shared_layers": 27}, "num_kv_shared_layers"),
        ({"model_type": "glm4_moe_lite", "head_dim": 128}, "head_dim"),
        ({"model_type": "glm4_moe_lite", "mlp_layer_types": ["dense"]}, "mlp_layer_types"),
    ],
)
def test_contradictions_are_named(config: dict[str, Any], field: str) -> None:
    assert f"'{field}'" in refusal(**config) or f" {field} " in refusal(**config)


def test_a_missing_model_type_is_said() -> None:
    assert "'model_type' is missing" in refusal(hidden_size=64)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "jamba", "use_mambapy": True}, "mamba.py"),
        ({"model_type": "kimi_linear", "layer_types": ["sliding_attention"] * 27}, "sliding_attention"),
        ({"model_type": "mamba", "residual_in_fp32": False}, "residual_in_fp32"),
        ({"model_type": "gemma4_text", "use_bidirectional_attention": "all"}, "looks ahead"),
        ({"model_type": "phimoe", "num_experts_per_tok": 4}, "num_experts_per_tok"),
        ({"model_type": "hunyuan_v1_moe", "moe_topk": [1, 2]}, "layers that differ"),
        ({"model_type": "deepseek_v3", "rope_interleave": False}, "rope_interleave"),
        ({"model_type": "zamba2"}, "not one that the formula knows"),
        ({"model_type": "new_dense", "num_experts": 0}, "not one that the formula knows"),
        ({"model_type": "x" * 100_000}, "not one that the formula knows"),
        ({**LLAMA, "hidden_act": "xielu"}, "xielu"),
        ({**LLAMA, "model_type": "olmo", "clip_qkv": 8.0}, "clip_qkv"),
        ({**LLAMA, "model_type": "phi", "qk_layernorm": True}, "qk_layernorm"),
        ({"model_type": "opt", "layerdrop": 0.1}, "layerdrop"),
        ({"model_type": "bloom", "hidden_dropout": 0.1}, "hidden_dropout"),
        ({"model_type": "mpt", "attn_config": {"clip_qkv": 6}}, "attn_config.clip_qkv"),
        ({"model_type": "gptj", "rotary_dim": None}, "rotary_dim"),
        ({**LLAMA, "model_type": "smollm3", "no_rope_layers": [0, 1]}, "no_rope_layers"),
        (
            {**LLAMA, "model_type": "qwen2", "use_sliding_window": True, "layer_types": ["linear_attention"] * 2},
            "linear_attention",
        ),
        ({"model_type": "gpt2", "add_cross_attention": True}, "cross-attention"),
        ({**LLAMA, "per_layer_config": [{}]}, "per_layer_config"),
    ],
)
def test_what_the_formula_cannot_say_is_left_to_the_dry_run(config: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=r"calibrate --dry-run --model config\.json"):
        spec_of(**config)
    assert what in refusal(**config)


def test_old_and_new_spellings_mean_the_same() -> None:
    old = spec_of(model_type="gpt2", n_embd=64, n_layer=3, n_head=4, n_positions=32)
    new = spec_of(
        model_type="gpt2", hidden_size=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=32
    )
    assert old == new
    assert (old.hidden_size, old.num_hidden_layers, old.max_position_embeddings) == (64, 3, 32)
    assert spec_of(**LLAMA, head_dim=None) == spec_of(**LLAMA)
    assert spec_of(model_type="falcon", n_embed=128, num_attention_heads=4).hidden_size == 128


def test_the_rotated_part_is_found_in_every_place() -> None:
    phi = {**LLAMA, "model_type": "phi"}
    assert spec_of(**phi).rotary_dim == 8
    assert spec_of(**phi, partial_rotary_factor=0.25).rotary_dim == 4
    assert spec_of(**phi, rope_parameters={"partial_rotary_factor": 0.75}).rotary_dim == 12
    assert spec_of(**phi, partial_rotary_factor=1.0).rotary_dim == 0
    assert spec_of(**{**LLAMA, "model_type": "gpt_neox"}, rotary_pct=0.5).rotary_dim == 8


def test_sliding_windows() -> None:
    assert spec_of(**{**LLAMA, "model_type": "mistral"}).sliding_window == 4096
    assert spec_of(**{**LLAMA, "model_type": "mistral"}, sliding_window=None).sliding_window == 0
    qwen = {**LLAMA, "model_type": "qwen2", "sliding_window": 512}
    assert spec_of(**qwen).sliding_window == 0
    assert spec_of(**qwen, use_sliding_window=True, max_window_layers=2).sliding_window == 0
    assert spec_of(**qwen, use_sliding_window=True, max_window_layers=1).sliding_window == 512
    gemma = {**LLAMA, "model_type": "gemma3_text", "sliding_window": 512, "head_dim": 16}
    assert spec_of(**gemma).sliding_window == 512
    assert spec_of(**gemma, layer_types=["full_attention"] * 2).sliding_window == 0


def test_layers_without_rope() -> None:
    assert spec_of(**{**LLAMA, "model_type": "smollm3", "num_hidden_layers": 8}).nope_every == 4
    assert spec_of(**{**LLAMA, "model_type": "smollm3"}, no_rope_layers=[1, 1]).nope_every == 0
    cohere = {**LLAMA, "model_type": "cohere2", "num_hidden_layers": 6}
    assert spec_of(**cohere, sliding_window_pattern=3).nope_every == 3


def test_a_multimodal_wrapper_gives_its_text_tower() -> None:
    wrapper = {"model_type": "llava", "text_config": LLAMA}
    spec = spec_of(**wrapper)
    assert (spec.name, spec.architecture) == ("tiny (text tower of llava)", "llama")
    assert parameter_count(spec) == parameter_count(spec_of(**LLAMA))
    assert spec_of(**wrapper, tie_word_embeddings=True).tie_word_embeddings
    assert spec_of(model_type="gemma3").architecture == "gemma3_text"
    assert decoder_config(wrapper) == {**LLAMA, "model_type": "llama"}
    assert decoder_config(LLAMA) is LLAMA


def test_qwen_towers_are_read_with_or_without_a_text_config() -> None:
    flat = {**LLAMA, "model_type": "qwen2_5_vl"}
    parted = {"model_type": "qwen2_5_vl", "text_config": {**LLAMA, "model_type": "qwen2_5_vl_text"}}
    assert spec_of(**flat) == spec_of(**parted)
    assert (spec_of(**flat).name, spec_of(**flat).architecture) == ("tiny (text tower of qwen2_5_vl)", "qwen2")
    assert spec_of(**flat, tie_word_embeddings=True).tie_word_embeddings
    assert spec_of(model_type="qwen2_vl").num_hidden_layers == 80
    assert spec_of(model_type="qwen3_vl").architecture == "qwen3"
    mixture = spec_of(model_type="qwen3_vl_moe", text_config={"num_experts": 8, "norm_topk_prob": False})
    assert (mixture.architecture, mixture.num_experts, mixture.router_normalized) == ("qwen3_moe", 8, True)
    assert mixture.experts == "fused_alone"  # peft does not take them for a Qwen 3 MoE's


SEEING = {**LLAMA, "model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 64, "out_hidden_size": 64}}


def test_a_tower_is_read_with_its_decoder() -> None:
    found = spec_of(**SEEING)
    assert found.name == "tiny"
    assert found.vision is not None
    assert (found.vision.window_size, found.vision.full_layers, found.vision.merge_size) == (112, (7, 15, 23, 31), 2)
    assert decoder_config(SEEING) is SEEING
    assert spec_of(**{**SEEING, "vision_config": None}).vision is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_hidden_size": 32}, "field 'vision_config' gives tokens of 32, but the decoder takes 64"),
        ({}, "field 'vision_config' gives tokens of 3584, but the decoder takes 64"),
        (
            {"hidden_size": 9, "out_hidden_size": 64},
            "'vision_config.hidden_size' is 9, which 16 heads do not divide",
        ),
        ({"depth": "many"}, "'vision_config.depth' is 'many': expected an integer from 1 to 1000"),
        ({"fullatt_block_indexes": [1, "2"]}, "'vision_config.fullatt_block_indexes' must list the numbers of blocks"),
    ],
)
def test_a_tower_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**{**SEEING, "vision_config": changes})


def test_a_text_part_of_no_known_family_is_traced_as_a_whole() -> None:
    whole = {"model_type": "llava", "text_config": {"model_type": "zamba2"}}
    assert decoder_config(whole) is whole


def test_a_wrapper_without_a_text_model_type() -> None:
    assert "'text_config.model_type' is missing" in refusal(model_type="llava", text_config={"hidden_size": 64})


def test_a_quantized_checkpoint_is_described_as_the_dense_model() -> None:
    found = spec_of(**LLAMA, quantization_config={"quant_method": "fp8"})
    assert found.checkpoint is not None
    assert found.model_copy(update={"checkpoint": None}) == spec_of(**LLAMA)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not JSON (line 1"),
        (b'{"model_type": "llama", ', "not JSON (line 1"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[1, 2]", "found list"),
        (b"null", "found NoneType"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 700_000, "nested too deeply"),
        (b'{"hidden_size": ' + b"9" * 10_000 + b"}", "too many digits"),
    ],
)
def test_files_that_are_no_config(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(BadConfig) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert what in str(caught.value)


def test_a_byte_order_mark_and_doubled_keys_are_forgiven() -> None:
    assert parse_config(b'\xef\xbb\xbf{"a": 1, "a": 2}', "f") == {"a": 2}


def test_what_is_not_a_small_regular_file_is_refused_unread(tmp_path: Path) -> None:
    """Read, the first would take a tebibyte of memory, and the pipe and /dev/zero would never end."""
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(2**40)
    limit = tmp_path / "limit.json"
    limit.write_bytes(b" " * (MAX_FILE_BYTES - 2) + b"{}")
    pipe, loop = tmp_path / "pipe.json", tmp_path / "loop.json"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    none, too_long = tmp_path / "none.json", tmp_path / ("x" * 999)
    for path in (huge, pipe, loop, tmp_path, Path("/dev/zero"), none, Path("a\0b"), too_long):
        with pytest.raises(BadConfig) as caught:
            read_config(path)
        assert len(str(caught.value).splitlines()) == 1
    assert read_config(limit) == {}


def test_control_characters_in_a_path_are_not_printed() -> None:
    with pytest.raises(BadConfig) as caught:
        read_config(Path("\x1b[2J\n/config.json"))
    assert str(caught.value).isprintable()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-5, 300) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "n_embd",
    "n_head",
    "n_layer",
    "n_inner",
    "n_positions",
    "num_kv_heads",
    "ffn_hidden_size",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "bias",
    "use_bias",
    "alibi",
    "multi_query",
    "new_decoder_architecture",
    "parallel_attn",
    "num_ln_in_parallel_attn",
    "rope_parameters",
    "rope_scaling",
    "partial_rotary_factor",
    "rotary_pct",
    "layer_types",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "sliding_window_pattern",
    "no_rope_layers",
    "no_rope_layer_interval",
    "hidden_act",
    "hidden_activation",
    "activation",
    "activation_function",
    "attention_dropout",
    "resid_pdrop",
    "clip_qkv",
    "text_config",
    "attn_logit_softcapping",
    "qk_layernorm",
    "use_qk_norm",
    "quantization_config",
    "per_layer_config",
)


@given(
    model_type=st.sampled_from([*sorted(all_families()), "gemma3", "llava", "mixtral"]) | ANYTHING,
    rest=st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=6),
)
def test_no_config_ever_brings_a_traceback(model_type: object, rest: dict[str, Any]) -> None:
    spec = attempt(lambda: model_from_config({"model_type": model_type, **rest}, "m", "config.json"))
    if isinstance(spec, str):
        assert spec.startswith("config.json: ")
    else:
        assert parameter_count(spec) >= sum(shape.weight_count for shape in layer_linears(spec).values())
        assert spec.num_attention_heads % spec.num_key_value_heads == 0


@given(data=st.binary(max_size=200) | ANYTHING.map(lambda v: json.dumps(v).encode()))
def test_no_bytes_ever_bring_a_traceback(data: bytes) -> None:
    found = attempt(lambda: parse_config(data, "config.json"))
    assert isinstance(found, dict) or str(found).startswith("config.json: ")


def test_a_part_that_a_family_makes_is_named_with_its_file() -> None:
    config = {"model_type": "mamba2", "chunk_size": 1_280_001}
    with pytest.raises(BadConfig, match=r"^odd\.json: chunk_size of Recurrence is 1280001"):
        model_from_config(config, "odd", "odd.json")
