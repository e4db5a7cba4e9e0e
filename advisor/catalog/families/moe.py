"""Families whose every layer is a mixture of experts: Mixtral, Qwen MoE, OLMoE, Granite MoE.

Sources: see the package.
"""

from __future__ import annotations

from advisor.catalog.families.experts import chosen_experts
from advisor.catalog.families.sizes import (
    Defaults,
    Family,
    Structure,
    expert_layers,
    rope,
    sizes,
    sliding_layers,
    window,
    windowed,
)
from advisor.catalog.fields import Fields


def _mixture(f: Fields, s: Structure, key: str, count: int, per_token: int, expert_size: int) -> Structure:
    """`key` of `count` experts, of which each token goes through `per_token`."""
    chosen = chosen_experts(f, (key,), count, ("num_experts_per_tok",), per_token)
    return {**s, "mlp": "experts", **chosen, "expert_size": expert_size, "mlp_names": ()}


def mixtral(f: Fields) -> Structure:
    """Mixtral."""
    s = sizes(f, Defaults(32_000, 4096, 14_336, 32, 32, 131_072, kv_heads=8))
    if f.number("router_jitter_noise", 0.0) > 0:
        raise f.unsupported("router_jitter_noise", "noise on the router's input")
    return rope(
        f,
        {
            **_mixture(f, s, f.key_of("num_local_experts", "num_experts"), 8, 2, s["intermediate_size"]),
            "router": "softmax_float",
            "router_normalized": True,
            "sliding_window": window(f, 0) if f.has("sliding_window") else 0,
        },
    )


def qwen_experts(f: Fields, s: Structure, count: int, per_token: int, width: int) -> Structure:
    """Experts with their own width, in every n-th layer except those listed."""
    layers, step, without = s["num_hidden_layers"], f.size("decoder_sparse_step", 1), f.items("mlp_only_layers")
    if any(type(i) is not int or not 0 <= i < layers for i in without):
        raise f.bad("mlp_only_layers", f"must list indices of the {layers} layers, counted from 0")
    mixed = [(i + 1) % step == 0 and i not in without for i in range(layers)]
    if not any(mixed):
        return s
    found = _mixture(
        f, s, f.key_of("num_experts", "num_local_experts"), count, per_token, f.size("moe_intermediate_size", width)
    )
    names = ("gate_proj", "up_proj", "down_proj")
    return {**found, "router_normalized": f.flag("norm_topk_prob", False), "mlp_names": names, **expert_layers(mixed)}


def qwen3_moe(f: Fields) -> Structure:
    """Qwen 3 MoE."""
    s = sizes(f, Defaults(151_936, 2048, 6144, 24, 32, 32_768, kv_heads=4))
    bias = f.flag("attention_bias", False)
    if f.flag("use_sliding_window", False):
        s["sliding_window"] = window(f, 4096)
    return rope(
        f,
        {
            **qwen_experts(f, s, 128, 8, 768),
            "qk_norm": "head",
            "qkv_bias": bias,
            "attention_out_bias": bias,
        },
    )


def qwen2_moe(f: Fields) -> Structure:
    """Qwen 2 MoE: an expert that every token goes through beside the chosen ones."""
    s = sizes(f, Defaults(151_936, 2048, 5632, 24, 16, 32_768, kv_heads=16))
    layers = s["num_hidden_layers"]
    slides: Structure = {}
    if f.flag("use_sliding_window", False):
        first = f.size("max_window_layers", 28, minimum=0)
        slides = windowed(window(f, 4096), sliding_layers(f, layers, lambda i: i >= first))
    return rope(
        f,
        {
            **qwen_experts(f, s, 60, 4, 1408),
            "qkv_bias": f.flag("qkv_bias", True),
            "shared_expert_size": f.size("shared_expert_intermediate_size", 5632),
            "shared_expert_gated": True,
            **slides,
        },
    )


def olmoe(f: Fields) -> Structure:
    """OLMoE."""
    s = sizes(f, Defaults(50_304, 2048, 2048, 16, 16, 4096))
    if f.has("clip_qkv"):
        raise f.unsupported("clip_qkv", "queries, keys and values clamped in place")
    bias = f.flag("attention_bias", False)
    found = _mixture(f, s, f.key_of("num_experts", "num_local_experts"), 64, 8, s["intermediate_size"])
    return rope(
        f,
        {
            **found,
            "router_normalized": f.flag("norm_topk_prob", False),
            "qk_norm": "full",
            "qkv_bias": bias,
            "attention_out_bias": bias,
        },
    )


def granitemoe(f: Fields) -> Structure:
    """Granite 3 MoE."""
    s = sizes(f, Defaults(32_000, 4096, 11_008, 32, 32, 2048))
    bias = f.flag("attention_bias", False)
    return rope(
        f,
        {
            **_mixture(f, s, f.key_of("num_local_experts", "num_experts"), 8, 2, s["intermediate_size"]),
            "router": "best_softmax",
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "embedding_multiplier": True,
            "residual_multiplier": True,
            "logits_multiplier": True,
        },
    )


FAMILIES: dict[str, Family] = {
    "granitemoe": granitemoe,
    "mixtral": mixtral,
    "olmoe": olmoe,
    "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe,
}
