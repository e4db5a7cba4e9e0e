"""Tiny configs of every architecture and of the forms that its config.json can ask for."""

from __future__ import annotations

from typing import Any

from advisor.catalog.config_json import model_from_config
from advisor.specs import ModelSpec, Recipe

SIZES: dict[str, Any] = {
    "vocab_size": 1009, "hidden_size": 192, "intermediate_size": 520, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 300,
}  # fmt: skip
EVERY_HEAD = SIZES | {"num_key_value_heads": 6}
GPT2: dict[str, Any] = {"vocab_size": 1009, "n_embd": 192, "n_layer": 3, "n_head": 6, "n_positions": 300}
FALCON: dict[str, Any] = {"vocab_size": 1009, "hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 6}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
WINDOW = 32

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, **SIZES},
    "mistral": {"model_type": "mistral", "sliding_window": WINDOW, **SIZES},
    "qwen2": {"model_type": "qwen2", **SIZES},
    "qwen2-sliding": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": WINDOW,
                      "max_window_layers": 2, **SIZES},
    "qwen3": {"model_type": "qwen3", **SIZES},
    "gemma": {"model_type": "gemma", "head_dim": 64, **SIZES},
    "gemma2": {"model_type": "gemma2", "head_dim": 64, "sliding_window": WINDOW, **SIZES},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 64, "sliding_window": 1000, "sliding_window_pattern": 3,
               **SIZES},
    "gemma3-sliding": {"model_type": "gemma3_text", "head_dim": 64, "sliding_window": WINDOW,
                       "sliding_window_pattern": 3, **SIZES},
    "phi": {"model_type": "phi", "partial_rotary_factor": 0.5, **EVERY_HEAD},
    "phi-dropout": {"model_type": "phi", "partial_rotary_factor": 0.5, "resid_pdrop": 0.1, "embd_pdrop": 0.1,
                    "attention_dropout": 0.1, **EVERY_HEAD},
    "phi3": {"model_type": "phi3", "pad_token_id": 0, **SIZES},
    "phi3-dropout": {"model_type": "phi3", "pad_token_id": 0, "resid_pdrop": 0.1, "attention_dropout": 0.1, **SIZES},
    "phi3-partial": {"model_type": "phi3", "pad_token_id": 0, "partial_rotary_factor": 0.75,
                     **SIZES, "num_attention_heads": 3, "num_key_value_heads": 1},
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
    "falcon-11b": {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2,
                   "num_ln_in_parallel_attn": 1, **FALCON},
    "falcon-rw": {"model_type": "falcon", "alibi": True, "bias": True, "parallel_attn": False, "multi_query": False,
                  **FALCON},
    "falcon-heads": {"model_type": "falcon", "multi_query": False, "bias": True, **FALCON},
    "olmo": {"model_type": "olmo", **SIZES},
    "olmo-tied": {"model_type": "olmo", "tie_word_embeddings": True, **SIZES},
    "olmo2": {"model_type": "olmo2", **SIZES},
    "smollm3": {"model_type": "smollm3", "no_rope_layer_interval": 2, "pad_token_id": 0, **SIZES},
    "smollm3-sliding": {"model_type": "smollm3", "no_rope_layer_interval": 2, "use_sliding_window": True,
                        "sliding_window": WINDOW, "pad_token_id": 0, **SIZES},
    "stablelm": {"model_type": "stablelm", **SIZES},
    "stablelm-parallel": {"model_type": "stablelm", "use_parallel_residual": True, "use_qkv_bias": True, **SIZES},
    "granite": {"model_type": "granite", **SIZES},
    "granite-dropout": {"model_type": "granite", "attention_dropout": 0.1, **SIZES},
    "starcoder2": {"model_type": "starcoder2", "sliding_window": WINDOW, **SIZES},
    "starcoder2-dropout": {"model_type": "starcoder2", "sliding_window": WINDOW, "attention_dropout": 0.1,
                           "residual_dropout": 0.1, "embedding_dropout": 0.1, **SIZES},
    "cohere": {"model_type": "cohere", **SIZES},
    "cohere2": {"model_type": "cohere2", "sliding_window": 1000, "sliding_window_pattern": 3, **SIZES},
    "cohere2-sliding": {"model_type": "cohere2", "sliding_window": WINDOW, "sliding_window_pattern": 3, **SIZES},
    "glm": {"model_type": "glm", "pad_token_id": 0, "head_dim": 32, **SIZES},
    "glm4": {"model_type": "glm4", "pad_token_id": 0, "head_dim": 32, **SIZES},
}


def spec(name: str, layers: int = 3) -> ModelSpec:
    """The spec of a tiny config, with so many layers."""
    return model_from_config(config(name, layers), name, name)


def config(name: str, layers: int = 3) -> dict[str, Any]:
    """A tiny config with so many layers."""
    found = dict(CONFIGS[name])
    found["n_layer" if "n_layer" in found else "num_hidden_layers"] = layers
    return found


def recipe(m: ModelSpec, method: Any, **knobs: Any) -> Recipe:
    """A recipe that can be traced for `m`."""
    knobs.setdefault("attention", m.default_attention)
    knobs.setdefault("quant", "nf4" if method in ("qlora", "qdora") else "none")
    return Recipe(method=method, **knobs)
