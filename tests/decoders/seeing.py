"""Tiny vision-language models, and the step on images compared with the executed one."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog.config_json import model_from_config
from advisor.costs.memory import predict_step_memory
from advisor.images import with_pictures
from advisor.specs import ModelSpec, Workload
from calibrate.worker.dryrun import real_step, trace_step
from tests.decoders.tiny import DELTA, SIZES, recipe

TOLERANCE = 1e-4
TEXT: dict[str, Any] = {
    **SIZES,
    "max_position_embeddings": 2000,
    "rope_scaling": {"rope_type": "default", "mrope_section": [4, 6, 6]},
}
PLAIN = {**SIZES, "max_position_embeddings": 2000}
TOWER: dict[str, Any] = {
    "depth": 6,
    "hidden_size": 64,
    "intermediate_size": 136,
    "num_heads": 4,
    "out_hidden_size": 192,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "text_config": {"model_type": "qwen2_vl_text", **TEXT},
        "vision_config": {"depth": 4, "embed_dim": 64, "hidden_size": 192, "num_heads": 4, "mlp_ratio": 2},
    },
    "qwen2_5_vl": {
        "text_config": {"model_type": "qwen2_5_vl_text", **TEXT},
        "vision_config": {**TOWER, "fullatt_block_indexes": [2, 5]},
    },
    "qwen3_vl": {
        "text_config": {"model_type": "qwen3_vl_text", **TEXT, "head_dim": 32, "num_hidden_layers": 5},
        "vision_config": {**TOWER, "deepstack_visual_indexes": [1, 3, 4], "num_position_embeddings": 100},
    },
}
MIXTURE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 72, "norm_topk_prob": True}
CONFIGS["qwen3_vl_moe"] = {
    "text_config": {**CONFIGS["qwen3_vl"]["text_config"], "model_type": "qwen3_vl_moe_text", **MIXTURE},
    "vision_config": CONFIGS["qwen3_vl"]["vision_config"],
}
CONFIGS["qwen3_5"] = {
    "text_config": {
        "model_type": "qwen3_5_text",
        **PLAIN,
        **DELTA,
        "num_hidden_layers": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.25},
    },
    "vision_config": {**TOWER, "num_position_embeddings": 100},
}
CONFIGS["qwen3_5_moe"] = {
    "text_config": {
        **CONFIGS["qwen3_5"]["text_config"],
        "model_type": "qwen3_5_moe_text",
        **MIXTURE,
        "shared_expert_intermediate_size": 136,
    },
    "vision_config": CONFIGS["qwen3_5"]["vision_config"],
}
SQUARES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 136,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
LAYERS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
CONFIGS["gemma3"] = {
    "mm_tokens_per_image": 4,
    "text_config": {"model_type": "gemma3_text", "head_dim": 64, "sliding_window": 1000, **LAYERS, **PLAIN},
    "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **SQUARES, "image_size": 224},
}
CONFIGS |= {
    "internvl": {
        "image_seq_length": 4,
        "tie_word_embeddings": False,
        "text_config": {"model_type": "qwen2", **PLAIN},
        "vision_config": {**SQUARES, "image_size": [56, 56], "patch_size": [14, 14]},
    },
    "llava": {
        "text_config": {"model_type": "llama", **PLAIN},
        "vision_config": {"model_type": "clip_vision_model", **SQUARES},
    },
    "llava_next": {
        "text_config": {"model_type": "llama", **PLAIN},
        "vision_config": {"model_type": "clip_vision_model", **SQUARES},
        "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]],
    },
    "mllama": {
        "text_config": {
            "model_type": "mllama_text_model",
            **PLAIN,
            "num_hidden_layers": 5,
            "cross_attention_layers": [1, 3],
            "pad_token_id": 0,
        },
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 136,
            "num_hidden_layers": 4,
            "num_global_layers": 2,
            "attention_heads": 4,
            "image_size": 56,
            "intermediate_layers_indices": [0, 2],
            "vision_output_dim": 192,
        },
    },
    "llava_pixtral": {
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": {"model_type": "mistral", "head_dim": 32, "sliding_window": None, **PLAIN},
        "vision_config": {"model_type": "pixtral", **SQUARES, "head_dim": 16, "image_size": 140},
    },
    "mistral3": {
        "tie_word_embeddings": False,
        "text_config": {"model_type": "mistral", "head_dim": 32, "sliding_window": None, **PLAIN},
        "vision_config": {"model_type": "pixtral", **SQUARES, "head_dim": 16, "image_size": 140},
    },
    "idefics3": {
        "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", **PLAIN},
        "vision_config": {"model_type": "idefics3_vision", **SQUARES, "image_size": 60},
    },
    "smolvlm": {
        "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", **PLAIN},
        "vision_config": {"model_type": "smolvlm_vision", **SQUARES, "image_size": 60},
    },
}
CONFIGS |= {
    "gemma4": {
        "audio_config": None,
        "text_config": {
            "model_type": "gemma4_text",
            **PLAIN,
            "head_dim": 32,
            "global_head_dim": 64,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
            "sliding_window": 1000,
            "use_bidirectional_attention": "vision",
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
        "vision_config": {
            "model_type": "gemma4_vision",
            "hidden_size": 64,
            "intermediate_size": 136,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 16,
            "position_embedding_size": 64,
            "standardize": True,
            "default_output_length": 12,
        },
    },
}


def tiny(name: str) -> tuple[dict[str, Any], ModelSpec]:
    """A tiny config and its spec."""
    kind = "llava" if name == "llava_pixtral" else name
    found = {"model_type": kind, "image_token_id": 7, **CONFIGS[name]}
    return found, model_from_config(found, name, name)


def check(
    name: str,
    method: Any,
    images: int = 1,
    size: str = "200x300",
    rows: int = 2,
    fake: bool = False,
    padded: bool = False,
    **knobs: Any,
) -> None:
    """Static terms to the byte and the peak within 0.01 % of the executed step, or of that on fake tensors."""
    traced, m = tiny(name)
    seen = with_pictures(m, Workload(images=images, image_size=size))
    assert isinstance(seen, ModelSpec)
    assert seen.vision is not None
    chosen, length = recipe(m, method, **knobs), 20 + seen.vision.row_tokens
    step = trace_step if fake else real_step
    trace = step(
        traced, chosen, rows, length, name_modules=False, pictures=seen.vision.row, rows="padded" if padded else "full"
    )
    predicted = predict_step_memory(seen, chosen, rows, length, "cpu", padded=padded)
    blocks = dict(predicted.static_blocks)
    blocks["optimizer states"] = blocks.get("optimizer states", 0) + blocks.pop("optimizer step counters", 0)
    found = {
        "base weights": trace.base_weights_bytes,
        "quantization constants": trace.quantization_bytes,
        "adapters": trace.adapters_bytes,
        "optimizer states": trace.optimizer_states_bytes,
        "buffers": trace.buffers_bytes,
        "batch": trace.inputs_bytes,
    }
    assert {name: blocks.get(name, 0) for name in found} == found
    assert predicted.peak_bytes == pytest.approx(trace.peak_bytes, rel=TOLERANCE)
