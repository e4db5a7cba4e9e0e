"""Gemma 1 to 4."""

from __future__ import annotations

from advisor.catalog.families.experts import chosen_experts, needed
from advisor.catalog.families.sizes import (
    MAX_HEAD_DIM,
    Defaults,
    Family,
    Structure,
    activation,
    kv_heads,
    rope,
    sizes,
    sliding_layers,
    window,
    windowed,
)
from advisor.catalog.fields import MAX_SIZE, Fields

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


def gemma4(f: Fields) -> Structure:
    """Gemma 4: full-attention layers have wider heads, fewer key heads, and may use keys as values."""
    d = Defaults(262_144, 2304, 9216, 30, 8, 131_072, kv_heads=4, head_dim=256, tied=True)
    s = sizes(f, d)
    for key, default, what in (
        ("hidden_size_per_layer_input", 256, "an embedding for each layer"),
        ("num_kv_shared_layers", 0, "layers that share keys and values"),
    ):
        if f.size(key, default, minimum=0):
            raise f.unsupported(key, what)
    if f.text("use_bidirectional_attention", "") == "all":
        raise f.unsupported("use_bidirectional_attention", "attention that looks ahead (an embedding model)")
    slides = sliding_layers(f, s["num_hidden_layers"], lambda i: bool((i + 1) % 6))
    slides[-1] = False  # its config class enforces that
    same = f.flag("attention_k_eq_v", False)
    wide, heads = _global_heads(f, s, slides, same)
    found = rope(
        f,
        {
            **s,
            "activation": activation(f, "hidden_activation", "gelu_pytorch_tanh"),
            "norm": "rms_power",
            "norm_placement": "sandwich",
            "qk_norm": "head",
            "embedding_multiplier": True,
            "keys_are_values": same,
            "qkv_bias": f.flag("attention_bias", False),
            "attention_out_bias": f.flag("attention_bias", False),
            "final_softcap": f.has("final_logit_softcapping"),
            "sliding_window": f.size("sliding_window", 512),
            "sliding_layers": tuple(slides),
            "global_head_dim": wide,
            "global_key_value_heads": heads,
        },
    )
    if not f.flag("enable_moe_block", False):
        return found
    return {
        **found,
        "mlp": "experts",
        "router_linear": "router.proj",
        "shared_expert_size": s["intermediate_size"],
        "expert_size": needed(f, "moe_intermediate_size", 0, "how wide is an expert?", MAX_SIZE),
        **chosen_experts(f, ("num_experts",), 0, ("top_k_experts",), 0),
    }


def _global_heads(f: Fields, s: Structure, slides: list[bool], same: bool) -> tuple[int, int]:
    """(width of a head, key heads) in the layers that do not slide; files written by transformers list the layers."""
    heads, key_heads = s["num_attention_heads"], s["num_key_value_heads"]
    if not f.has("per_layer_config"):
        wide = f.size("global_head_dim", 512, maximum=MAX_HEAD_DIM)
        if same and f.has("num_global_key_value_heads"):
            key_heads = kv_heads(f, "num_global_key_value_heads", heads, key_heads)
        return wide, key_heads
    layers = f.part("per_layer_config")
    parts = [layers.part(key) for key in layers.config]
    widths = {part.size("head_dim", 512, maximum=MAX_HEAD_DIM) for part in parts}
    counts = {kv_heads(part, "num_key_value_heads", heads, key_heads) for part in parts}
    full = {str(i) for i, one in enumerate(slides) if not one}
    if set(map(str, layers.config)) != full or len(widths) != 1 or len(counts) != 1:
        raise f.unsupported("per_layer_config", "layers that differ beyond sliding and full attention")
    return widths.pop(), counts.pop()


FAMILIES: dict[str, Family] = {
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
    "gemma4_text": gemma4,
}
