"""Every catalog model and every family against the model that transformers builds, on the meta device."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText
from transformers.pytorch_utils import Conv1D

from advisor.catalog.config_json import decoder_config, model_from_config
from advisor.catalog.entries import model_folder
from advisor.catalog.families import all_families
from advisor.errors import BadConfig, UnsupportedArchitecture
from advisor.parameters.layers import kinds_of, part_of
from advisor.parameters.modules import layer_linears, parameter_count
from advisor.specs import ModelSpec
from calibrate.worker.hf_config import auto_class

FILES = sorted(p for p in Path(str(model_folder())).glob("*.json") if p.name != "index.json")
SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
INCOMPLETE = {
    "deepseek_v2": "num_experts_per_tok",
    "dots1": "n_shared_experts",
    "glm4_moe": "num_attention_heads",
    "lfm2_moe": "'layer_types' is missing",
}
"""By default tokens go to None experts, or 96 heads do not divide 4,096."""

SMALL_GPT2 = {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
SMALL_OPT = {
    "vocab_size": 96,
    "hidden_size": 64,
    "ffn_dim": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
SMALL_MAMBA = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}
SMALL_MAMBA2 = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_heads": 8,
    "head_dim": 16,
    "n_groups": 2,
    "state_size": 24,
}
SMALL_RULE = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 24}
SMALL_FALCON = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@lru_cache(maxsize=40)
def built(text: str) -> Any:
    """The model that transformers makes of the config.json `text`, on the meta device, and its config."""
    config: dict[str, Any] = json.loads(text)
    config = dict(decoder_config(config))
    made = AutoConfig.for_model(**{"pad_token_id": None, **config})
    kind = auto_class(made, config.get("architectures"))
    if "vision_config" in config:
        kind = AutoModelForImageTextToText
    pools = kind is AutoModel and "add_pooling_layer" in inspect.signature(kind._model_mapping[type(made)]).parameters
    options = {"add_pooling_layer": False} if pools else {}
    with torch.device("meta"):
        return kind.from_config(made, **options)


def decoder_layer(model: Any) -> torch.nn.Module:
    """Its last decoder layer: the first ones may have no experts."""
    language = getattr(getattr(model, "model", None), "language_model", model)
    layers = next(m for m in language.modules() if isinstance(m, torch.nn.ModuleList))
    return layers[-1]


def linears(layer: torch.nn.Module) -> Iterator[tuple[str, int, int, bool]]:
    """Name, inputs, outputs and bias of its linear layers."""
    for name, module in layer.named_modules():
        if isinstance(module, torch.nn.Linear) and "Router" not in type(module).__name__:  # Llama 4's and Phi's
            yield name, module.in_features, module.out_features, module.bias is not None
        elif isinstance(module, Conv1D):
            yield name, module.weight.shape[0], module.weight.shape[1], True


def tied(config: Any) -> bool:
    """Whether the head is the embedding; Llama 3.2 Vision's config says it of its text part alone."""
    where = config if hasattr(config, "tie_word_embeddings") else config.get_text_config()
    return bool(where.tie_word_embeddings)


def check(spec: ModelSpec, model: Any) -> None:
    """Count to the unit, and the linear layers by name suffix, shape and bias."""
    assert parameter_count(spec) == sum(p.numel() for p in model.parameters())
    found = list(linears(decoder_layer(model)))
    shapes = layer_linears(part_of(spec, kinds_of(spec)[-1]))
    assert len(found) == len(shapes)
    for name, inputs, outputs, bias in found:
        ends = [s for s in shapes.values() if f".{name}".endswith(f".{s.name}")]
        matching = [s for s in ends if s.name.startswith("self_attn.")] or ends  # the MLP has one of that name too
        matching = [shapes[name]] if name in shapes else matching
        assert [(s.in_features, s.out_features, s.bias) for s in matching] == [(inputs, outputs, bias)], name
    assert spec.default_attention == model.config._attn_implementation
    assert spec.labels or spec.tie_word_embeddings == tied(model.config)


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """The spec of a config.json."""
    return model_from_config(config, "m", "m")


def test_the_catalog_is_all_here() -> None:
    assert len(FILES) >= 150


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_catalog_model_is_what_transformers_builds(path: Path) -> None:
    data = json.loads(path.read_text())
    spec = spec_of(data["config"])
    check(spec, built(json.dumps(data["config"], sort_keys=True)))
    assert parameter_count(spec) == data["parameters"]


@pytest.mark.parametrize("model_type", sorted(INCOMPLETE))
def test_a_default_that_cannot_run_is_refused(model_type: str) -> None:
    with pytest.raises((BadConfig, UnsupportedArchitecture), match=INCOMPLETE[model_type]):
        spec_of({"model_type": model_type})


@pytest.mark.parametrize("model_type", sorted(set(all_families()) - set(INCOMPLETE)))
def test_defaults_of_missing_keys_are_those_of_transformers(model_type: str) -> None:
    made = AutoConfig.for_model(model_type)
    attributes = made.to_dict() | {"model_type": model_type}
    bare, full = spec_of({"model_type": model_type}), spec_of(attributes)
    assert bare == full
    if bare.position != "alibi" and not bare.one_block:  # BLOOM and Mamba have no longest row, MPT calls it otherwise
        beyond = bare.position_offset if bare.bidirectional else 0
        assert bare.max_position_embeddings + beyond == made.max_position_embeddings
    assert bare.num_hidden_layers == made.num_hidden_layers


LATENT = SMALL | {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 4,
}
INDEXER = {"index_n_heads": 4, "index_head_dim": 16, "index_topk": 32}
LLAMA4 = SMALL | {"intermediate_size_mlp": 80, "moe_layers": []}

MOE = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
GEMMA3N = SMALL | {
    "head_dim": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 90,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
GEMMA4 = SMALL | {
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "sliding_window": 32,
}

SHARED_KEYS = {"num_kv_shared_layers": 2, "layer_types": ["full_attention", "sliding_attention"] * 2}

VARIANTS: list[dict[str, Any]] = [
    {"model_type": "llama", **SMALL, "attention_bias": True},
    {"model_type": "llama", **SMALL, "mlp_bias": True, "tie_word_embeddings": True},
    {"model_type": "llama", **SMALL, "head_dim": 8},
    {"model_type": "mistral", **SMALL, "head_dim": 32},
    {"model_type": "qwen2", **SMALL, "use_sliding_window": True, "max_window_layers": 2},
    {"model_type": "qwen3", **SMALL, "attention_bias": True, "head_dim": 8},
    {"model_type": "gemma", **SMALL, "hidden_act": "gelu"},
    {"model_type": "gemma2", **SMALL, "attn_logit_softcapping": None},
    {"model_type": "gemma3_text", **SMALL, "sliding_window_pattern": 2},
    {"model_type": "phi", **SMALL, "partial_rotary_factor": 0.25},
    {"model_type": "phi3", **SMALL, "partial_rotary_factor": 0.75, "tie_word_embeddings": True},
    {"model_type": "gpt_neox", **SMALL, "use_parallel_residual": False, "attention_bias": False},
    {"model_type": "gpt2", **SMALL_GPT2, "n_inner": 80, "tie_word_embeddings": False},
    {"model_type": "gpt_bigcode", **SMALL_GPT2, "multi_query": False},
    {"model_type": "gpt_bigcode", **SMALL_GPT2},
    {"model_type": "falcon", **SMALL_FALCON, "bias": True, "alibi": True, "parallel_attn": False},
    {"model_type": "falcon", **SMALL_FALCON, "multi_query": False, "ffn_hidden_size": 80},
    {"model_type": "falcon", **SMALL_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    {"model_type": "falcon", **SMALL_FALCON, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
    {"model_type": "falcon", **SMALL_FALCON, "tie_word_embeddings": False},
    {"model_type": "olmo", **SMALL, "attention_bias": True},
    {"model_type": "olmo2", **SMALL},
    {"model_type": "smollm3", **SMALL, "no_rope_layer_interval": 2, "mlp_bias": True},
    {"model_type": "stablelm", **SMALL, "use_parallel_residual": True, "use_qkv_bias": True},
    {"model_type": "granite", **SMALL, "attention_bias": True, "mlp_bias": True},
    {"model_type": "starcoder2", **SMALL, "use_bias": False},
    {"model_type": "cohere", **SMALL, "attention_bias": True},
    {"model_type": "cohere2", **SMALL},
    {"model_type": "glm", **SMALL, "head_dim": 16, "attention_bias": False},
    {"model_type": "glm4", **SMALL, "head_dim": 16},
    {"model_type": "arcee", **SMALL, "mlp_bias": True, "attention_bias": True},
    {"model_type": "bloom", "vocab_size": 96, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    {"model_type": "deepseek_v2", **LATENT, "q_lora_rank": None, "attention_bias": True, "mlp_bias": True},
    {"model_type": "deepseek_v3", **LATENT},
    {"model_type": "deepseek_v2", **LATENT, "first_k_dense_replace": 0, "num_experts_per_tok": 2},
    {"model_type": "deepseek_v3", **LATENT, "first_k_dense_replace": 0, "n_routed_experts": 8, "norm_topk_prob": False},
    {"model_type": "gpt_oss", **SMALL, "head_dim": 16, "num_local_experts": 4, "sliding_window": 32},
    {"model_type": "llama4_text", **LLAMA4, "head_dim": 16, "use_qk_norm": False},
    {"model_type": "llama4_text", **SMALL, "head_dim": 16, "num_local_experts": 2},
    {"model_type": "ernie4_5", **SMALL, "head_dim": 32, "use_bias": True},
    {"model_type": "exaone4", **SMALL, "sliding_window": 32},
    {"model_type": "granitemoe", **SMALL, "num_local_experts": 4, "attention_bias": True},
    {"model_type": "mixtral", **SMALL, "num_local_experts": 4, "head_dim": 8},
    {"model_type": "olmoe", **SMALL, "num_experts": 8, "attention_bias": True},
    {"model_type": "bert", **SMALL, "type_vocab_size": 3},
    {"model_type": "bert", **SMALL, "architectures": ["BertModel"]},
    {"model_type": "modernbert", **SMALL, "pad_token_id": 0, "global_attn_every_n_layers": 2, "norm_bias": True},
    {
        "model_type": "modernbert",
        **SMALL,
        "pad_token_id": 0,
        "decoder_bias": False,
        "classifier_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    {"model_type": "modernbert", **SMALL, "pad_token_id": 0, "architectures": ["ModernBertForSequenceClassification"]},
    {"model_type": "bert", **SMALL, "architectures": ["BertForSequenceClassification"], "num_labels": 3},
    {"model_type": "roberta", **SMALL, "architectures": ["RobertaForSequenceClassification"], "num_labels": 1},
    {"model_type": "qwen3", **SMALL, "architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1},
    {"model_type": "roberta", **SMALL, "type_vocab_size": 1},
    {"model_type": "xlm-roberta", **SMALL, "hidden_act": "relu"},
    {"model_type": "lfm2", **SMALL, "layer_types": ["conv", "full_attention"] * 2, "pad_token_id": 0},
    {"model_type": "lfm2", **SMALL, "full_attn_idxs": [1], "block_ff_dim": 96, "pad_token_id": 0},
    {
        "model_type": "lfm2_moe",
        **SMALL,
        "layer_types": ["conv", "full_attention"] * 2,
        "num_dense_layers": 1,
        "moe_intermediate_size": 48,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "pad_token_id": 0,
    },
    {"model_type": "granitemoehybrid", **SMALL, "mamba_n_heads": 8, "mamba_proj_bias": True, "num_local_experts": 4},
    {
        "model_type": "granitemoehybrid",
        **SMALL,
        "layer_types": ["mamba", "attention"] * 2,
        "mamba_n_heads": 8,
        "num_local_experts": 0,
        "position_embedding_type": "rope",
    },
    {"model_type": "mamba2", **SMALL_MAMBA2, "use_bias": True, "tie_word_embeddings": True},
    {"model_type": "mamba2", **SMALL_MAMBA2, "use_conv_bias": False, "n_groups": 1},
    {"model_type": "kimi_linear", **LATENT, **MOE, "pad_token_id": 0, "linear_num_heads": 3, "linear_head_dim": 8},
    {
        "model_type": "kimi_linear",
        **LATENT,
        "pad_token_id": 0,
        "q_lora_rank": None,
        "first_k_dense_replace": 9,
        "attention_bias": True,
        "linear_attn_config": {"head_dim": 8, "num_heads": 3, "kda_layers": [1, 4], "full_attn_layers": [2, 3]},
    },
    {"model_type": "jamba", **SMALL, "num_experts": 4, "attn_layer_period": 3, "attn_layer_offset": 1},
    {"model_type": "jamba", **SMALL, "num_experts": 1, "mamba_proj_bias": True, "mamba_dt_rank": 5},
    {"model_type": "mamba", **SMALL_MAMBA, "use_bias": True, "time_step_rank": 7},
    {"model_type": "mamba", **SMALL_MAMBA, "use_conv_bias": False, "tie_word_embeddings": False, "expand": 3},
    {"model_type": "falcon_mamba", **SMALL_MAMBA, "intermediate_size": 96, "tie_word_embeddings": False},
    {"model_type": "bamba", **SMALL, "mamba_n_heads": 8, "attn_layer_indices": [3], "attention_bias": True},
    {"model_type": "bamba", **SMALL, "mamba_n_heads": 8, "mamba_conv_bias": False, "mlp_bias": True},
    {"model_type": "falcon_h1", **SMALL, "mamba_n_heads": 8, "mamba_d_ssm": None, "mlp_bias": True},
    {"model_type": "falcon_h1", **SMALL, "mamba_n_heads": 8, "mamba_d_ssm": 48, "tie_word_embeddings": True},
    {
        "model_type": "falcon_h1",
        **SMALL,
        "mamba_n_heads": 8,
        "mamba_d_ssm": 48,
        "mamba_rms_norm": True,
        "mamba_norm_before_gate": False,
    },
    {"model_type": "nemotron_h", **SMALL, "mamba_num_heads": 8, "hybrid_override_pattern": "M*-M"},
    {
        "model_type": "nemotron_h",
        **SMALL,
        "layers_block_type": ["mamba", "mlp", "attention", "moe"],
        "moe_intermediate_size": 48,
        "moe_latent_size": 24,
        "use_bias": True,
    },
    {"model_type": "qwen2_moe", **SMALL, "num_experts": 4, "moe_intermediate_size": 48, "qkv_bias": False},
    {"model_type": "qwen3_moe", **SMALL, "num_experts": 8, "moe_intermediate_size": 48, "attention_bias": True},
    {"model_type": "qwen3_5_text", **SMALL, "linear_num_key_heads": 4, "linear_num_value_heads": 8},
    {"model_type": "qwen3_5_text", **SMALL, **SMALL_RULE, "attention_bias": True, "tie_word_embeddings": True},
    {"model_type": "qwen3_5_moe_text", **SMALL, **SMALL_RULE, "num_experts": 4, "num_experts_per_tok": 2},
    {"model_type": "qwen3_next", **SMALL, **SMALL_RULE, "num_experts": 4, "num_experts_per_tok": 2},
    {"model_type": "qwen3_next", **SMALL, **SMALL_RULE, "mlp_only_layers": [0, 1, 2, 3], "head_dim": 32},
    {"model_type": "olmo_hybrid", **SMALL, "pad_token_id": 0, "rope_theta": None},
    {
        "model_type": "olmo_hybrid",
        **SMALL,
        "pad_token_id": 0,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": 16,
        "linear_allow_neg_eigval": False,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    {"model_type": "gptj", **SMALL_GPT2, "rotary_dim": 8, "n_inner": 80},
    {"model_type": "hunyuan_v1_dense", **SMALL, "head_dim": 32, "attention_bias": True},
    {"model_type": "ministral3", **SMALL, "head_dim": 32},
    {"model_type": "mpt", "vocab_size": 96, "d_model": 64, "n_layers": 2, "n_heads": 4},
    {"model_type": "nemotron", **SMALL, "attention_bias": True, "mlp_bias": True},
    {"model_type": "olmo3", **SMALL, "attention_bias": True},
    {"model_type": "opt", **SMALL_OPT, "enable_bias": False},
    {"model_type": "opt", **SMALL_OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
    {"model_type": "opt", **SMALL_OPT, "_remove_final_layer_norm": True},
    {"model_type": "opt", **SMALL_OPT},
    {"model_type": "seed_oss", **SMALL, "head_dim": 32, "attention_out_bias": True},
    {"model_type": "stablelm", **SMALL, "qk_layernorm": True},
    {"model_type": "cohere", **SMALL, "use_qk_norm": True},
    {"model_type": "gpt_neox", **SMALL, "hidden_act": "gelu_fast"},
    {"model_type": "apertus", **SMALL, "attention_bias": True},
    {"model_type": "apertus", **SMALL, "hidden_act": "relu2"},
    {"model_type": "dots1", **SMALL, **MOE, "first_k_dense_replace": 1, "attention_bias": True},
    {
        "model_type": "ernie4_5_moe",
        **SMALL,
        "moe_intermediate_size": 48,
        "moe_num_experts": 4,
        "moe_k": 2,
        "use_bias": True,
        "tie_word_embeddings": False,
    },
    {"model_type": "ernie4_5_moe", **SMALL, "moe_layer_start_index": 9},
    {"model_type": "deepseek_v32", **LATENT, **MOE, **INDEXER, "first_k_dense_replace": 1},
    {"model_type": "deepseek_v32", **LATENT, **INDEXER, "first_k_dense_replace": 9, "attention_bias": True},
    {
        "model_type": "glm_moe_dsa",
        **LATENT,
        **MOE,
        **INDEXER,
        "mlp_layer_types": ["dense", "dense", "sparse", "sparse"],
    },
    {"model_type": "glm_moe_dsa", **LATENT, **MOE, **INDEXER, "index_topk_pattern": "FSFF"},
    {"model_type": "afmoe", **SMALL, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
    {"model_type": "afmoe", **SMALL, "head_dim": 16, "num_dense_layers": 4, "attention_bias": True},
    {"model_type": "laguna", **SMALL, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
    {
        "model_type": "laguna",
        **SMALL,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "gating": "per-element",
        "layer_types": ["full_attention", "sliding_attention"] * 2,
    },
    {"model_type": "laguna", **SMALL, "head_dim": 16, "mlp_layer_types": ["dense"] * 4},
    {"model_type": "mimo_v2_flash", **SMALL, **MOE, "head_dim": 32, "v_head_dim": 16, "attention_bias": True},
    {"model_type": "mimo_v2_flash", **SMALL, **MOE, "head_dim": 32, "layer_types": ["full_attention"] * 4},
    {"model_type": "minimax_m2", **SMALL, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    {"model_type": "solar_open", **SMALL, **MOE, "head_dim": 16, "attention_bias": True},
    {"model_type": "mistral4", **LATENT, **MOE, "first_k_dense_replace": 1},
    {"model_type": "hy_v3", **SMALL, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "mlp_bias": True},
    {"model_type": "hy_v3", **SMALL, "head_dim": 16, "mlp_layer_types": ["dense"] * 4},
    {"model_type": "gemma4_text", **GEMMA4},
    {"model_type": "gemma4_text", **GEMMA4, "attention_k_eq_v": False, "attention_bias": True},
    {"model_type": "gemma4_text", **GEMMA4, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 90},
    {"model_type": "gemma4_text", **GEMMA4, **SHARED_KEYS, "use_double_wide_mlp": True},
    {"model_type": "gemma4_unified_text", **GEMMA4, **SHARED_KEYS},
    {"model_type": "gemma3n_text", **GEMMA3N},
    {"model_type": "gemma3n_text", **GEMMA3N, "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0], "laurel_rank": 8},
    {
        "model_type": "gemma4_text",
        **GEMMA4,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 48,
    },
    {"model_type": "glm4_moe", **SMALL, **MOE, "head_dim": 16, "use_qk_norm": True, "attention_bias": True},
    {"model_type": "glm4_moe", **SMALL, "head_dim": 16, "first_k_dense_replace": 9},
    {"model_type": "glm4_moe_lite", **LATENT, **MOE},
    {"model_type": "granitemoeshared", **SMALL, "num_local_experts": 4, "shared_intermediate_size": 48},
    {"model_type": "granitemoeshared", **SMALL, "num_local_experts": 4},
    {"model_type": "hunyuan_v1_moe", **SMALL, "head_dim": 16, "num_experts": 4, "moe_topk": 2, "attention_bias": True},
    {"model_type": "phimoe", **SMALL, "num_local_experts": 4, "attention_bias": True, "lm_head_bias": True},
    {"model_type": "llama4_text", **SMALL, "head_dim": 16, "num_local_experts": 2, "interleave_moe_layer_step": 2},
    {"model_type": "qwen3_moe", **SMALL, "num_experts": 8, "moe_intermediate_size": 48, "mlp_only_layers": [0, 2]},
    {"model_type": "qwen2_moe", **SMALL, "num_experts": 4, "moe_intermediate_size": 48, "decoder_sparse_step": 2},
]


TEXT_PARTS = {
    "Glm4vTextModel": {"model_type": "glm4v", "text_config": SMALL},
    "Glm4vMoeTextModel": {"model_type": "glm4v_moe", "text_config": {**SMALL, **MOE}},
    "PaddleOCRTextModel": {"model_type": "paddleocr_vl", "text_config": {**SMALL, "tie_word_embeddings": False}},
    "Qwen2_5OmniThinkerTextModel": {"model_type": "qwen2_5_omni", "thinker_config": {"text_config": SMALL}},
    "Qwen3OmniMoeThinkerTextModel": {
        "model_type": "qwen3_omni_moe",
        "thinker_config": {"text_config": {**SMALL, "head_dim": 16, "num_experts": 9, "moe_intermediate_size": 48}},
    },
}


@pytest.mark.parametrize("name", TEXT_PARTS)
def test_a_text_part_that_is_read_as_a_familys_has_its_layers(name: str) -> None:
    part: dict[str, Any] = TEXT_PARTS[name]
    spec = spec_of(part)
    kind = getattr(transformers, name)
    sizes = part.get("thinker_config", part)["text_config"]
    with torch.device("meta"):
        model = kind(kind.config_class(**{"pad_token_id": None, "tie_word_embeddings": False, **sizes}))
        model.head = torch.nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
    check(spec, model)


def test_every_family_has_a_variant() -> None:
    parts = {"mllama_text_model"}  # which transformers builds in a whole model alone: the catalog's
    assert {v["model_type"] for v in VARIANTS} == set(all_families()) - parts


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: "-".join([c["model_type"], *list(c)[8:]]))
def test_structural_flags_are_read_as_transformers_reads_them(config: dict[str, Any]) -> None:
    check(spec_of(config), built(json.dumps(config, sort_keys=True)))


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: "-".join([c["model_type"], *list(c)[8:]]))
def test_a_file_that_transformers_writes_is_read_the_same(config: dict[str, Any], tmp_path: Path) -> None:
    """save_pretrained drops defaults and renames keys; the spec must survive it."""
    AutoConfig.for_model(**config).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert spec_of(written) == spec_of(config)


def test_rotary_dim_matches_the_rotary_tables() -> None:
    for config in VARIANTS:
        spec = spec_of(config)
        rotary = [m for m in built(json.dumps(config, sort_keys=True)).modules() if hasattr(m, "inv_freq")]
        if rotary and spec.position == "rope":
            assert 2 * rotary[0].inv_freq.numel() == (spec.rotary_dim or spec.head_dim), config
