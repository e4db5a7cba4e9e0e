"""Cohere's Command R and GLM 4."""

from __future__ import annotations

from advisor.catalog.families.sizes import (
    Defaults,
    Family,
    Structure,
    every_nth,
    rope,
    rotary_factor,
    sizes,
    sliding_layers,
    window,
    windowed,
)
from advisor.catalog.fields import Fields


def _cohere_like(f: Fields, s: Structure) -> Structure:
    bias = f.flag("attention_bias", False)
    return rope(
        f,
        {
            **s,
            "norm": "layer_float",
            "norm_placement": "parallel_one",
            "logits_multiplier": True,
            "qkv_bias": bias,
            "attention_out_bias": bias,
        },
    )


def cohere(f: Fields) -> Structure:
    """Command R: LayerNorms in fp32, attention and MLP side by side."""
    s = sizes(f, Defaults(256_000, 8192, 22_528, 40, 64, 8192, tied=True))
    return _cohere_like(f, {**s, "qk_norm": "each" if f.flag("use_qk_norm", False) else "none"})


def cohere2(f: Fields) -> Structure:
    """Cohere 2: sliding layers have RoPE, the full ones between them have none."""
    s = sizes(f, Defaults(256_000, 8192, 22_528, 40, 64, 8192, tied=True), explicit_head_dim=False)
    every = f.size("sliding_window_pattern", 4)
    sliding = sliding_layers(f, s["num_hidden_layers"], lambda i: bool((i + 1) % every))
    if f.is_null("sliding_window"):
        raise f.unsupported("sliding_window", "no window, hence no RoPE at all")
    nope = every_nth(f, "layer_types", [not is_sliding for is_sliding in sliding])
    return _cohere_like(f, {**s, "nope_every": nope, **windowed(window(f, 4096), sliding)})


def glm(f: Fields) -> Structure:
    """GLM 4 of 2024: RoPE on half of each head, gate and up in one projection."""
    s = sizes(f, Defaults(151_552, 4096, 13_696, 40, 32, 131_072, kv_heads=2, head_dim=128))
    return rope(
        f,
        {
            **s,
            "qkv_bias": f.flag("attention_bias", True),
            "mlp": "gated_fused",
            "mlp_names": ("gate_up_proj", "down_proj"),
        },
        rotary_factor(f, 0.5),
    )


def glm4(f: Fields) -> Structure:
    """GLM 4 of 2025: norms before and after each block."""
    return {**glm(f), "norm_placement": "sandwich"}


FAMILIES: dict[str, Family] = {
    "cohere": cohere,
    "cohere2": cohere2,
    "glm": glm,
    "glm4": glm4,
}
