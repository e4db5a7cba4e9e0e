"""Gemma 1 to 3."""

from __future__ import annotations

from advisor.catalog.families.sizes import (
    Defaults,
    Family,
    Structure,
    activation,
    rope,
    sizes,
    sliding_layers,
    window,
    windowed,
)
from advisor.catalog.fields import Fields

_GEMMA: Structure = {"norm": "rms_unit_offset", "embedding_multiplier": True}


def gemma(f: Fields) -> Structure:
    """Gemma 1."""
    d = Defaults(
        256_000, 3072, 24_576, 28, 16, 8192, kv_heads=16, head_dim=256, tied=True, activation="gelu_pytorch_tanh"
    )
    s = sizes(f, d)
    if s["activation"] == "gelu":  # the first files say "gelu" and mean the tanh form; the config class corrects it
        s["activation"] = "gelu_tanh"
    bias = f.flag("attention_bias", False)
    return rope(f, {**s, **_GEMMA, "qkv_bias": bias, "attention_out_bias": bias})


def _gemma2_like(f: Fields, d: Defaults, pattern: int) -> Structure:
    s = sizes(f, d, must_divide=True)
    bias = f.flag("attention_bias", False)
    slides = sliding_layers(f, s["num_hidden_layers"], lambda i: bool((i + 1) % pattern))
    return rope(
        f,
        {
            **s,
            **_GEMMA,
            "activation": activation(f, "hidden_activation", d.activation),
            "norm_placement": "sandwich",
            "qkv_bias": bias,
            "attention_out_bias": bias,
            **windowed(window(f, 4096), slides),
        },
    )


def gemma2(f: Fields) -> Structure:
    """Gemma 2: soft caps, norms before and after each block, a sliding window in every other layer."""
    d = Defaults(256_000, 2304, 9216, 26, 8, 8192, kv_heads=4, head_dim=256, tied=True, activation="gelu_pytorch_tanh")
    return {
        **_gemma2_like(f, d, pattern=2),
        "attention_softcap": not f.is_null("attn_logit_softcapping"),
        "final_softcap": not f.is_null("final_logit_softcapping"),
        "default_attention": "eager",  # Gemma2PreTrainedModel._supports_sdpa is False
    }


def gemma3(f: Fields) -> Structure:
    """The text model of Gemma 3."""
    d = Defaults(
        262_208, 2304, 9216, 26, 8, 131_072, kv_heads=4, head_dim=256, tied=True, activation="gelu_pytorch_tanh"
    )
    if f.flag("use_bidirectional_attention", False):
        raise f.unsupported("use_bidirectional_attention", "attention that looks ahead (an embedding model)")
    return {
        **_gemma2_like(f, d, pattern=f.size("sliding_window_pattern", 6)),
        "qk_norm": "head",
        "attention_softcap": f.has("attn_logit_softcapping"),
        "final_softcap": f.has("final_logit_softcapping"),
    }


FAMILIES: dict[str, Family] = {
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
}
