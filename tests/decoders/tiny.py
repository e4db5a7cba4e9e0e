"""Tiny configs of every architecture and of the forms that its config.json can ask for."""

from __future__ import annotations

from typing import Any

from advisor.catalog.config_json import model_from_config
from advisor.parameters.own_weights import fails_quantized
from advisor.parameters.targets import default_targets, fails_on_all_linear, fuses_experts
from advisor.specs import DORA_METHODS, ModelSpec, Recipe

SIZES: dict[str, Any] = {
    "vocab_size": 1009,
    "hidden_size": 192,
    "intermediate_size": 520,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 300,
}
EVERY_HEAD = SIZES | {"num_key_value_heads": 6}
GPT2: dict[str, Any] = {"vocab_size": 1009, "n_embd": 192, "n_layer": 3, "n_head": 6, "n_positions": 300}
OPT: dict[str, Any] = {
    "vocab_size": 1009,
    "hidden_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 300,
}
FALCON: dict[str, Any] = {"vocab_size": 1009, "hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 6}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
WINDOW = 32

LATENT: dict[str, Any] = {
    **EVERY_HEAD,
    "q_lora_rank": 72,
    "kv_lora_rank": 56,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "first_k_dense_replace": 99,
}
LATENT_EXPERTS: dict[str, Any] = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
}
AFMOE: dict[str, Any] = {
    "head_dim": 32,
    "num_experts": 8,
    "moe_intermediate_size": 72,
    "global_attn_every_n_layers": 2,
    "sliding_window": 1000,
}
LAGUNA: dict[str, Any] = {"num_experts": 8, "moe_intermediate_size": 72, "shared_expert_intermediate_size": 136}
MIMO: dict[str, Any] = {"head_dim": 48, "v_head_dim": 32, "n_routed_experts": 8, "moe_intermediate_size": 72}
INDEXER: dict[str, Any] = {
    "index_topk": 16,
    "index_head_dim": 32,
    "index_n_heads": 4,
    "n_group": 1,
    "topk_group": 1,
}
LLAMA4: dict[str, Any] = {
    "model_type": "llama4_text",
    "moe_layers": [],
    "no_rope_layer_interval": 2,
    "head_dim": 32,
    "intermediate_size_mlp": 520,
    "pad_token_id": 0,
    **SIZES,
}

EXPERTS: dict[str, Any] = {**SIZES, "intermediate_size": 104, "num_experts_per_tok": 2}
GLM_EXPERTS: dict[str, Any] = {
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "moe_intermediate_size": 72,
    "first_k_dense_replace": 1,
}
GEMMA4: dict[str, Any] = {
    **SIZES,
    "head_dim": 32,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "sliding_window": 1000,
    "final_logit_softcapping": 30.0,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}

MAMBA2: dict[str, Any] = {**SIZES, "mamba_n_heads": 12, "mamba_d_state": 24, "mamba_chunk_size": 16}
MAMBA: dict[str, Any] = {"vocab_size": 1009, "hidden_size": 192, "num_hidden_layers": 3, "state_size": 24}
JAMBA: dict[str, Any] = {**SIZES, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 24}
DELTA: dict[str, Any] = {
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 24,
    "linear_value_head_dim": 40,
    "layer_types": ["linear_attention", "full_attention"],
}
GRANITE_HYBRID: dict[str, Any] = {
    **MAMBA2,
    **EXPERTS,
    "shared_intermediate_size": 136,
    "layer_types": ["mamba", "attention"],
}

NEMOTRON_H: dict[str, Any] = {
    **SIZES,
    "head_dim": 32,
    "n_groups": 2,
    "mamba_num_heads": 12,
    "mamba_head_dim": 20,
    "ssm_state_size": 24,
    "chunk_size": 16,
}
GEMMA3N: dict[str, Any] = {
    **SIZES,
    "head_dim": 32,
    "num_hidden_layers": 4,
    "hidden_size_per_layer_input": 24,
    "vocab_size_per_layer_input": 1003,
    "laurel_rank": 16,
    "sliding_window": 1000,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, **SIZES},
    "mistral": {"model_type": "mistral", "sliding_window": WINDOW, **SIZES},
    "qwen2": {"model_type": "qwen2", **SIZES},
    "qwen2-sliding": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 2,
        **SIZES,
    },
    "qwen3": {"model_type": "qwen3", **SIZES},
    "gemma": {"model_type": "gemma", "head_dim": 64, **SIZES},
    "gemma2": {"model_type": "gemma2", "head_dim": 64, "sliding_window": WINDOW, **SIZES},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 64,
        "sliding_window": 1000,
        "sliding_window_pattern": 3,
        **SIZES,
    },
    "gemma3-sliding": {
        "model_type": "gemma3_text",
        "head_dim": 64,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 3,
        **SIZES,
    },
    "phi": {"model_type": "phi", "partial_rotary_factor": 0.5, **EVERY_HEAD},
    "phi-dropout": {
        "model_type": "phi",
        "partial_rotary_factor": 0.5,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attention_dropout": 0.1,
        **EVERY_HEAD,
    },
    "phi3": {"model_type": "phi3", "pad_token_id": 0, **SIZES},
    "phi3-dropout": {"model_type": "phi3", "pad_token_id": 0, "resid_pdrop": 0.1, "attention_dropout": 0.1, **SIZES},
    "phi3-partial": {
        "model_type": "phi3",
        "pad_token_id": 0,
        "partial_rotary_factor": 0.75,
        **SIZES,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
    },
    "gpt2": {"model_type": "gpt2", **GPT2},
    "gpt2-plain": {"model_type": "gpt2", **NO_DROPOUT, **GPT2},
    "gpt_bigcode": {"model_type": "gpt_bigcode", **GPT2},
    "gpt_bigcode-plain": {"model_type": "gpt_bigcode", **NO_DROPOUT, **GPT2},
    "gpt_bigcode-heads": {"model_type": "gpt_bigcode", "multi_query": False, **GPT2},
    "gpt_neox": {"model_type": "gpt_neox", **EVERY_HEAD},
    "gpt_neox-dropout": {"model_type": "gpt_neox", "hidden_dropout": 0.1, "attention_dropout": 0.1, **EVERY_HEAD},
    "gpt_neox-sequential": {"model_type": "gpt_neox", "use_parallel_residual": False, **EVERY_HEAD},
    "falcon-7b": {"model_type": "falcon", **FALCON},
    "falcon-40b": {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2, **FALCON},
    "falcon-11b": {
        "model_type": "falcon",
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
        "num_ln_in_parallel_attn": 1,
        **FALCON,
    },
    "falcon-rw": {
        "model_type": "falcon",
        "alibi": True,
        "bias": True,
        "parallel_attn": False,
        "multi_query": False,
        **FALCON,
    },
    "falcon-heads": {"model_type": "falcon", "multi_query": False, "bias": True, **FALCON},
    "olmo": {"model_type": "olmo", **SIZES},
    "olmo-tied": {"model_type": "olmo", "tie_word_embeddings": True, **SIZES},
    "olmo2": {"model_type": "olmo2", **SIZES},
    "smollm3": {"model_type": "smollm3", "no_rope_layer_interval": 2, "pad_token_id": 0, **SIZES},
    "smollm3-sliding": {
        "model_type": "smollm3",
        "no_rope_layer_interval": 2,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "pad_token_id": 0,
        **SIZES,
    },
    "stablelm": {"model_type": "stablelm", **SIZES},
    "stablelm-parallel": {"model_type": "stablelm", "use_parallel_residual": True, "use_qkv_bias": True, **SIZES},
    "stablelm-normed": {"model_type": "stablelm", "use_parallel_residual": True, "qk_layernorm": True, **SIZES},
    "cohere-normed": {"model_type": "cohere", "use_qk_norm": True, **SIZES},
    "granite": {"model_type": "granite", **SIZES},
    "granite-dropout": {"model_type": "granite", "attention_dropout": 0.1, **SIZES},
    "starcoder2": {"model_type": "starcoder2", "sliding_window": WINDOW, **SIZES},
    "starcoder2-dropout": {
        "model_type": "starcoder2",
        "sliding_window": WINDOW,
        "attention_dropout": 0.1,
        "residual_dropout": 0.1,
        "embedding_dropout": 0.1,
        **SIZES,
    },
    "cohere": {"model_type": "cohere", **SIZES},
    "cohere2": {"model_type": "cohere2", "sliding_window": 1000, "sliding_window_pattern": 3, **SIZES},
    "cohere2-sliding": {"model_type": "cohere2", "sliding_window": WINDOW, "sliding_window_pattern": 3, **SIZES},
    "deepseek_v2": {"model_type": "deepseek_v2", **LATENT},
    "deepseek_v2-direct": {"model_type": "deepseek_v2", **LATENT, "q_lora_rank": None, "attention_bias": True},
    "deepseek_v3": {"model_type": "deepseek_v3", **LATENT},
    "deepseek_v2-experts": {"model_type": "deepseek_v2", **LATENT, **LATENT_EXPERTS},
    "deepseek_v3-experts": {"model_type": "deepseek_v3", **LATENT, **LATENT_EXPERTS, "n_group": 2, "topk_group": 1},
    "gpt_oss": {
        "model_type": "gpt_oss",
        **SIZES,
        "head_dim": 32,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": WINDOW,
        "intermediate_size": 136,
    },
    "llama4": {**LLAMA4, "attention_chunk_size": 1000},
    "llama4-experts": {
        **LLAMA4,
        "attention_chunk_size": WINDOW,
        "moe_layers": None,
        "num_local_experts": 4,
        "intermediate_size": 136,
    },
    "llama4-sliding": {**LLAMA4, "attention_chunk_size": WINDOW},
    "glm": {"model_type": "glm", "pad_token_id": 0, "head_dim": 32, **SIZES},
    "glm4": {"model_type": "glm4", "pad_token_id": 0, "head_dim": 32, **SIZES},
    "seed_oss": {"model_type": "seed_oss", "head_dim": 32, "attention_dropout": 0.0, "residual_dropout": 0.0, **SIZES},
    "seed_oss-dropout": {"model_type": "seed_oss", "head_dim": 32, **SIZES},
    "ernie4_5": {"model_type": "ernie4_5", "head_dim": 32, **SIZES},
    "arcee": {"model_type": "arcee", **SIZES},
    "nemotron": {"model_type": "nemotron", **SIZES},
    "olmo3": {
        "model_type": "olmo3",
        "sliding_window": 1000,
        **SIZES,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "olmo3-sliding": {
        "model_type": "olmo3",
        "sliding_window": WINDOW,
        **SIZES,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "exaone4": {"model_type": "exaone4", "sliding_window": None, "layer_types": ["full_attention"] * 3, **SIZES},
    "exaone4-sliding": {"model_type": "exaone4", "sliding_window": WINDOW, "sliding_window_pattern": 3, **SIZES},
    "hunyuan_v1_dense": {"model_type": "hunyuan_v1_dense", "head_dim": 32, **SIZES},
    "opt": {"model_type": "opt", "dropout": 0.0, "ffn_dim": 520, **OPT},
    "opt-narrow": {
        "model_type": "opt",
        "dropout": 0.0,
        "ffn_dim": 520,
        **OPT,
        "word_embed_proj_dim": 96,
        "do_layer_norm_before": False,
    },
    "opt-dropout": {"model_type": "opt", "attention_dropout": 0.1, "ffn_dim": 520, **OPT},
    "gptj": {"model_type": "gptj", "rotary_dim": 16, **GPT2},
    "gpt_neox-fast": {"model_type": "gpt_neox", "hidden_act": "gelu_fast", **EVERY_HEAD},
    "bloom": {"model_type": "bloom", "hidden_size": 192, "n_layer": 3, "n_head": 6, "vocab_size": 1009},
    "mpt": {"model_type": "mpt", "d_model": 192, "n_layers": 3, "n_heads": 6, "vocab_size": 1009, "max_seq_len": 300},
    "mixtral": {"model_type": "mixtral", **EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        **EXPERTS,
        "num_experts": 8,
        "moe_intermediate_size": 72,
        "norm_topk_prob": True,
    },
    "qwen2_moe": {
        "model_type": "qwen2_moe",
        **EXPERTS,
        "num_experts": 6,
        "moe_intermediate_size": 72,
        "shared_expert_intermediate_size": 136,
    },
    "olmoe": {"model_type": "olmoe", **EXPERTS, "num_experts": 8},
    "granitemoe": {"model_type": "granitemoe", **EXPERTS, "num_local_experts": 5},
    "ministral3": {"model_type": "ministral3", "head_dim": 32, **SIZES},
    "llama4-interleaved": {
        **LLAMA4,
        "attention_chunk_size": WINDOW,
        "moe_layers": None,
        "num_local_experts": 4,
        "interleave_moe_layer_step": 2,
        "intermediate_size": 136,
    },
    "qwen3_moe-some": {
        "model_type": "qwen3_moe",
        **EXPERTS,
        "num_experts": 8,
        "moe_intermediate_size": 72,
        "mlp_only_layers": [1],
    },
    "glm4_moe": {"model_type": "glm4_moe", "head_dim": 32, **EXPERTS, **GLM_EXPERTS},
    "glm4_moe-normed": {
        "model_type": "glm4_moe",
        "head_dim": 32,
        **EXPERTS,
        **GLM_EXPERTS,
        "use_qk_norm": True,
        "attention_bias": True,
        "norm_topk_prob": False,
    },
    "glm4_moe_lite": {"model_type": "glm4_moe_lite", **LATENT, **LATENT_EXPERTS},
    "qwen3_moe-vision": {
        "model_type": "qwen3_moe",
        **EXPERTS,
        "num_experts": 8,
        "moe_intermediate_size": 72,
        "norm_topk_prob": True,
        "text_part": "qwen3_vl_moe_text",
    },
    "deepseek_v32": {"model_type": "deepseek_v32", **LATENT, **LATENT_EXPERTS, **INDEXER},
    "deepseek_v32-all": {"model_type": "deepseek_v32", **LATENT, **INDEXER, "index_topk": 1000},
    "glm_moe_dsa": {"model_type": "glm_moe_dsa", **LATENT, **LATENT_EXPERTS, **INDEXER},
    "glm_moe_dsa-shared": {
        "model_type": "glm_moe_dsa",
        **LATENT,
        **LATENT_EXPERTS,
        **INDEXER,
        "index_topk_freq": 2,
        "index_skip_topk_offset": 1,
    },
    "glm_moe_dsa-late": {
        "model_type": "glm_moe_dsa",
        **LATENT,
        **INDEXER,
        "indexer_types": ["full", "full", "full", "shared"],
    },
    "afmoe": {"model_type": "afmoe", **EXPERTS, **AFMOE},
    "afmoe-sliding": {"model_type": "afmoe", **EXPERTS, **AFMOE, "sliding_window": WINDOW, "mup_enabled": True},
    "laguna": {"model_type": "laguna", "head_dim": 32, **EXPERTS, **LAGUNA},
    "laguna-sliding": {
        "model_type": "laguna",
        "head_dim": 32,
        **EXPERTS,
        **LAGUNA,
        "sliding_window": WINDOW,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "gating": "per-element",
        "moe_router_logit_softcapping": 30.0,
    },
    "mimo_v2_flash": {"model_type": "mimo_v2_flash", **EXPERTS, **MIMO, "num_key_value_heads": 3},
    "mimo_v2_flash-sliding": {
        "model_type": "mimo_v2_flash",
        **EXPERTS,
        **MIMO,
        "num_key_value_heads": 1,
        "sliding_window": WINDOW,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
    "minimax_m2": {"model_type": "minimax_m2", "head_dim": 32, **EXPERTS, "num_local_experts": 8, "rotary_dim": 16},
    "solar_open": {"model_type": "solar_open", "head_dim": 32, **EXPERTS, **GLM_EXPERTS},
    "mistral4": {"model_type": "mistral4", "pad_token_id": 0, **LATENT, **LATENT_EXPERTS},
    "hy_v3": {"model_type": "hy_v3", "head_dim": 32, **EXPERTS, "num_experts": 8, "moe_intermediate_size": 72},
    "hy_v3-half": {
        "model_type": "hy_v3",
        "head_dim": 32,
        **EXPERTS,
        "num_experts": 8,
        "moe_intermediate_size": 72,
        "num_shared_experts": 2,
        "attention_bias": True,
        "enable_moe_fp32_combine": False,
    },
    "dots1": {"model_type": "dots1", **EXPERTS, **GLM_EXPERTS, "sliding_window": WINDOW, "max_window_layers": 2},
    "ernie4_5_moe": {
        "model_type": "ernie4_5_moe",
        **EXPERTS,
        "moe_intermediate_size": 72,
        "moe_num_experts": 8,
        "moe_k": 2,
    },
    "ernie4_5_moe-alone": {
        "model_type": "ernie4_5_moe",
        **EXPERTS,
        "moe_intermediate_size": 72,
        "moe_num_experts": 8,
        "moe_k": 2,
        "moe_num_shared_experts": 0,
        "moe_layer_interval": 2,
        "use_bias": True,
    },
    "hunyuan_v1_moe": {"model_type": "hunyuan_v1_moe", "head_dim": 32, **EXPERTS, "num_experts": 4, "moe_topk": 2},
    "granitemoeshared": {
        "model_type": "granitemoeshared",
        **EXPERTS,
        "num_local_experts": 5,
        "shared_intermediate_size": 136,
    },
    "apertus": {"model_type": "apertus", **SIZES},
    "phimoe": {"model_type": "phimoe", **EXPERTS, "num_local_experts": 8},
    "phimoe-jitter": {
        "model_type": "phimoe",
        **EXPERTS,
        "num_local_experts": 8,
        "input_jitter_noise": 0.01,
        "attention_bias": True,
        "lm_head_bias": True,
        "sliding_window": WINDOW,
    },
    "lfm2": {"model_type": "lfm2", **SIZES, "pad_token_id": 0, "layer_types": ["conv", "full_attention"]},
    "lfm2-bias": {
        "model_type": "lfm2",
        **SIZES,
        "pad_token_id": 0,
        "layer_types": ["conv", "conv", "full_attention"],
        "conv_bias": True,
        "block_auto_adjust_ff_dim": False,
    },
    "qwen3_5": {"model_type": "qwen3_5_text", **SIZES, **DELTA},
    "qwen3_5-heads": {
        "model_type": "qwen3_5_text",
        **SIZES,
        **DELTA,
        "linear_num_key_heads": 4,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    },
    "qwen3_5_moe": {
        "model_type": "qwen3_5_moe_text",
        **EXPERTS,
        **DELTA,
        "num_experts": 8,
        "moe_intermediate_size": 72,
        "shared_expert_intermediate_size": 136,
    },
    "qwen3_next": {
        "model_type": "qwen3_next",
        **EXPERTS,
        **DELTA,
        "num_experts": 8,
        "moe_intermediate_size": 72,
        "shared_expert_intermediate_size": 136,
    },
    "qwen3_next-heads": {
        "model_type": "qwen3_next",
        **SIZES,
        **DELTA,
        "linear_num_key_heads": 4,
        "mlp_only_layers": [0, 1, 2],
    },
    "olmo_hybrid": {"model_type": "olmo_hybrid", **SIZES, **DELTA, "pad_token_id": 0, "rope_theta": None},
    "olmo_hybrid-rope": {
        "model_type": "olmo_hybrid",
        **SIZES,
        **DELTA,
        "pad_token_id": 0,
        "linear_allow_neg_eigval": False,
    },
    "kimi_linear": {
        "model_type": "kimi_linear",
        **LATENT,
        "q_lora_rank": None,
        "pad_token_id": 0,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "linear_num_heads": 3,
        "linear_head_dim": 24,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "mamba": {"model_type": "mamba", **MAMBA},
    "falcon_mamba": {"model_type": "falcon_mamba", **MAMBA, "use_bias": True, "tie_word_embeddings": False},
    "mamba2": {
        "model_type": "mamba2",
        "vocab_size": 1009,
        "hidden_size": 192,
        "num_hidden_layers": 3,
        "num_heads": 12,
        "head_dim": 32,
        "state_size": 24,
        "n_groups": 2,
        "chunk_size": 16,
    },
    "jamba": {"model_type": "jamba", **JAMBA, "num_experts": 4, "mamba_proj_bias": True},
    "granitemoehybrid": {"model_type": "granitemoehybrid", **GRANITE_HYBRID, "num_local_experts": 5},
    "granitemoehybrid-dense": {
        "model_type": "granitemoehybrid",
        **GRANITE_HYBRID,
        "layer_types": ["mamba", "mamba", "attention"],
        "num_local_experts": 0,
        "position_embedding_type": "rope",
        "mamba_proj_bias": True,
        "mamba_n_groups": 4,
    },
    "bamba": {"model_type": "bamba", **MAMBA2, "attn_layer_indices": [1]},
    "falcon_h1": {"model_type": "falcon_h1", **MAMBA2, "mamba_d_ssm": 240, "mlp_bias": True},
    "nemotron_h": {"model_type": "nemotron_h", **NEMOTRON_H, "layers_block_type": ["mamba", "attention", "mlp"]},
    "nemotron_h-experts": {
        "model_type": "nemotron_h",
        **NEMOTRON_H,
        "layers_block_type": ["moe", "mamba"],
        "n_routed_experts": 8,
        "moe_intermediate_size": 72,
        "moe_latent_size": 96,
        "moe_shared_expert_intermediate_size": 136,
        "use_bias": True,
        "mlp_bias": True,
    },
    "lfm2_moe": {
        "model_type": "lfm2_moe",
        **EXPERTS,
        "pad_token_id": 0,
        "layer_types": ["conv", "full_attention"],
        "num_dense_layers": 1,
        "num_experts": 8,
        "moe_intermediate_size": 72,
    },
    "bert": {"model_type": "bert", **EVERY_HEAD},
    "bert-still": {
        "model_type": "bert",
        **EVERY_HEAD,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "bert-embeddings": {"model_type": "bert", **EVERY_HEAD, "architectures": ["BertModel"]},
    "xlm-roberta-embeddings": {
        "model_type": "xlm-roberta",
        **EVERY_HEAD,
        "architectures": ["XLMRobertaModel"],
        "attention_probs_dropout_prob": 0.0,
    },
    "qwen3-embeddings": {"model_type": "qwen3", "head_dim": 32, **SIZES, "architectures": ["Qwen3Model"]},
    "modernbert": {"model_type": "modernbert", **EVERY_HEAD, "pad_token_id": 0, "local_attention": 2000},
    "modernbert-sliding": {
        "model_type": "modernbert",
        **EVERY_HEAD,
        "pad_token_id": 0,
        "local_attention": 2 * WINDOW,
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
        "embedding_dropout": 0.1,
    },
    "modernbert-embeddings": {
        "model_type": "modernbert",
        **EVERY_HEAD,
        "pad_token_id": 0,
        "architectures": ["ModernBertModel"],
    },
    "llama-classifier": {
        "model_type": "llama",
        **SIZES,
        "pad_token_id": 0,
        "architectures": ["LlamaForSequenceClassification"],
        "num_labels": 5,
    },
    "gpt2-classifier": {
        "model_type": "gpt2",
        **GPT2,
        "pad_token_id": 0,
        "architectures": ["GPT2ForSequenceClassification"],
    },
    "bert-classifier": {"model_type": "bert", **EVERY_HEAD, "architectures": ["BertForSequenceClassification"]},
    "roberta-classifier": {
        "model_type": "roberta",
        **EVERY_HEAD,
        "architectures": ["RobertaForSequenceClassification"],
        "num_labels": 3,
    },
    "modernbert-classifier": {
        "model_type": "modernbert",
        **EVERY_HEAD,
        "pad_token_id": 0,
        "architectures": ["ModernBertForSequenceClassification"],
        "classifier_pooling": "mean",
    },
    "roberta": {"model_type": "roberta", **EVERY_HEAD, "type_vocab_size": 1},
    "xlm-roberta": {"model_type": "xlm-roberta", **EVERY_HEAD, "attention_probs_dropout_prob": 0.0},
    "gemma3n": {
        "model_type": "gemma3n_text",
        **GEMMA3N,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "gemma3n-sliding": {
        "model_type": "gemma3n_text",
        **GEMMA3N,
        "num_kv_shared_layers": 0,
        "sliding_window": WINDOW,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gemma4": {"model_type": "gemma4_text", **GEMMA4},
    "gemma4-sliding": {"model_type": "gemma4_text", **GEMMA4, "sliding_window": WINDOW, "attention_k_eq_v": False},
    "gemma4-own-inputs": {
        "model_type": "gemma4_text",
        **GEMMA4,
        "hidden_size_per_layer_input": 24,
        "vocab_size_per_layer_input": 1003,
        "attention_k_eq_v": False,
    },
    "gemma4-shared-sliding": {
        "model_type": "gemma4_text",
        **GEMMA4,
        "hidden_size_per_layer_input": 24,
        "num_hidden_layers": 8,
        "num_kv_shared_layers": 5,
        "use_double_wide_mlp": True,
        "attention_k_eq_v": False,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 4,
    },
    "gemma4_unified": {"model_type": "gemma4_unified_text", **GEMMA4},
    "gemma4-experts-sliding": {
        "model_type": "gemma4_text",
        **GEMMA4,
        "sliding_window": WINDOW,
        "num_experts": 8,
        "enable_moe_block": True,
        "top_k_experts": 2,
        "moe_intermediate_size": 72,
    },
    "falcon_h1-normed": {
        "model_type": "falcon_h1",
        **MAMBA2,
        "mamba_d_ssm": 240,
        "mamba_n_groups": 2,
        "mamba_rms_norm": True,
        "mamba_norm_before_gate": False,
    },
}


def spec(name: str, layers: int = 3) -> ModelSpec:
    """The spec of a tiny config, with so many layers."""
    return model_from_config(config(name, layers), name, name)


def config(name: str, layers: int = 3) -> dict[str, Any]:
    """A tiny config with so many layers."""
    found = dict(CONFIGS[name])
    key = next(k for k in ("n_layer", "n_layers", "num_hidden_layers") if k in found)
    found[key] = layers
    for key in ("layer_types", "layers_block_type", "activation_sparsity_pattern", "indexer_types"):
        if key in found:
            found[key] = (found[key] * layers)[:layers]
    if "num_kv_shared_layers" in found:  # one of each kind has its own
        found["num_kv_shared_layers"] = max(0, min(found["num_kv_shared_layers"], layers - 2))
    if "mlp_only_layers" in found:
        found["mlp_only_layers"] = [index for index in found["mlp_only_layers"] if index < layers]
    return found


def recipe(m: ModelSpec, method: Any, **knobs: Any) -> Recipe:
    """A recipe that can be traced for `m`."""
    if fails_quantized(m):
        method = {"qlora": "lora", "qdora": "dora"}.get(method, method)
    knobs.setdefault("attention", m.default_attention)
    if fuses_experts(m) and method in DORA_METHODS:  # peft refuses all-linear
        knobs.setdefault("target_modules", ("attention",))
    if fails_on_all_linear(m):
        attends = default_targets(m) == ("attention",)
        knobs.setdefault("target_modules", ("q_proj", "o_proj", *m.mlp_names[-1:]) if attends else default_targets(m))
    knobs.setdefault("sequence_kernels", "torch")
    knobs.setdefault("quant", "nf4" if method in ("qlora", "qdora") else "none")
    return Recipe(method=method, **knobs)
