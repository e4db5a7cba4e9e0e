"""Llama and its closest variants: Mistral, Qwen 2 and 3, SmolLM 3, Granite, OLMo, StableLM, StarCoder 2."""

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


def llama(f: Fields) -> Structure:
    """Llama 1 to 3."""
    s = sizes(f, Defaults(32_000, 4096, 11_008, 32, 32, 2048), must_divide=True)
    bias = f.flag("attention_bias", False)
    return rope(f, {**s, "qkv_bias": bias, "attention_out_bias": bias, "mlp_bias": f.flag("mlp_bias", False)})


def mistral(f: Fields) -> Structure:
    """Mistral: Llama with a sliding window."""
    s = sizes(f, Defaults(32_000, 4096, 14_336, 32, 32, 131_072, kv_heads=8))
    return rope(f, {**s, "sliding_window": window(f, 4096)})


def mllama(f: Fields) -> Structure:
    """Llama 3.2 Vision: some layers attend to images, and marks of images are embedded beyond the head's tokens."""
    s = sizes(f, Defaults(128_256, 4096, 14_336, 40, 32, 131_072, kv_heads=8), must_divide=True)
    layers, given = s["num_hidden_layers"], f.has("cross_attention_layers")
    crossing = f.items("cross_attention_layers") if given else list(range(3, layers, 5))
    if not all(type(one) is int and 0 <= one < layers for one in crossing):
        raise f.bad("cross_attention_layers", f"must list the numbers of some of the {layers} layers")
    if f.number("dropout", 0.0):
        raise f.unsupported("dropout", "dropout of attention")
    flags = tuple(one in crossing for one in range(layers))
    return rope(f, {**s, "cross_layers": flags if any(flags) else (), "extra_tokens": 8})


def _qwen_window(f: Fields, layers: int) -> Structure:
    if not f.flag("use_sliding_window", False):
        return {}
    first = f.size("max_window_layers", 28, minimum=0)
    return windowed(window(f, 4096), sliding_layers(f, layers, lambda i: i >= first))


def qwen2(f: Fields) -> Structure:
    """Qwen 2 and 2.5: biases on queries, keys and values."""
    s = sizes(f, Defaults(151_936, 4096, 22_016, 32, 32, 32_768, kv_heads=32))
    return rope(f, {**s, "qkv_bias": True, **_qwen_window(f, s["num_hidden_layers"])})


def qwen3(f: Fields) -> Structure:
    """Qwen 3: queries and keys normed head by head."""
    s = sizes(f, Defaults(151_936, 4096, 22_016, 32, 32, 32_768, kv_heads=32, head_dim=128))
    bias = f.flag("attention_bias", False)
    return rope(
        f,
        {
            **s,
            "qk_norm": "head",
            "qkv_bias": bias,
            "attention_out_bias": bias,
            **_qwen_window(f, s["num_hidden_layers"]),
        },
    )


def smollm3(f: Fields) -> Structure:
    """SmolLM 3: every fourth layer has no RoPE."""
    s = sizes(f, Defaults(128_256, 2048, 11_008, 36, 16, 32_768, kv_heads=4, tied=True))
    layers = s["num_hidden_layers"]
    every = f.size("no_rope_layer_interval", 4)
    with_rope = f.items("no_rope_layers") or [int((i + 1) % every != 0) for i in range(layers)]
    if len(with_rope) != layers or any(flag not in (0, 1) for flag in with_rope):
        raise f.bad("no_rope_layers", f"must be a list of 0 or 1 for each of the {layers} layers")
    slides = sliding_layers(f, layers, lambda i: not with_rope[i])
    size = window(f, 0) if f.flag("use_sliding_window", False) and f.has("sliding_window") else 0
    bias = f.flag("attention_bias", False)
    return rope(
        f,
        {
            **s,
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "mlp_bias": f.flag("mlp_bias", False),
            "nope_every": every_nth(f, "no_rope_layers", [not flag for flag in with_rope]),
            **windowed(size, slides),
        },
    )


def granite(f: Fields) -> Structure:
    """Granite: Llama with multipliers."""
    return {
        **llama_without_check(f),
        "embedding_multiplier": True,
        "residual_multiplier": True,
        "logits_multiplier": True,
    }


def llama_without_check(f: Fields) -> Structure:
    """Llama's structure where the hidden size need not be a multiple of the heads."""
    s = sizes(f, Defaults(32_000, 4096, 11_008, 32, 32, 2048))
    bias = f.flag("attention_bias", False)
    return rope(f, {**s, "qkv_bias": bias, "attention_out_bias": bias, "mlp_bias": f.flag("mlp_bias", False)})


def stablelm(f: Fields) -> Structure:
    """StableLM 2: LayerNorms, RoPE on a quarter of each head."""
    s = sizes(f, Defaults(50_304, 2560, 6912, 32, 32, 4096, kv_heads=32), explicit_head_dim=False)
    if f.number("hidden_dropout", 0.0) > 0:
        raise f.unsupported("hidden_dropout", "dropout after the MLP only")
    return rope(
        f,
        {
            **s,
            "norm": "layer",
            "norm_bias": True,
            "qkv_bias": f.flag("use_qkv_bias", False),
            "qk_norm": "each_apart" if f.flag("qk_layernorm", False) else "none",
            "norm_placement": "parallel_one" if f.flag("use_parallel_residual", False) else "pre",
        },
        rotary_factor(f, 0.25),
    )


def starcoder2(f: Fields) -> Structure:
    """StarCoder 2: LayerNorms, a plain MLP, biases."""
    d = Defaults(49_152, 3072, 12_288, 30, 24, 4096, kv_heads=2, tied=True, activation="gelu_pytorch_tanh")
    s = sizes(f, d)
    bias = f.flag("use_bias", True)
    return rope(
        f,
        {
            **s,
            "norm": "layer",
            "norm_bias": True,
            "mlp": "plain",
            "mlp_names": ("c_fc", "c_proj"),
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "mlp_bias": bias,
            "sliding_window": window(f, 0) if f.has("sliding_window") else 0,
            "residual_dropout": f.number("residual_dropout", 0.0),
            "embedding_dropout": f.number("embedding_dropout", 0.0),
        },
    )


def olmo(f: Fields) -> Structure:
    """OLMo: LayerNorms without weights."""
    s = sizes(f, Defaults(50_304, 4096, 11_008, 32, 32, 2048))
    if f.has("clip_qkv"):
        raise f.unsupported("clip_qkv", "queries, keys and values clamped in place")
    bias = f.flag("attention_bias", False)
    return rope(f, {**s, "norm": "layer_float", "norm_weight": False, "qkv_bias": bias, "attention_out_bias": bias})


def olmo2(f: Fields) -> Structure:
    """OLMo 2: norms after each block, queries and keys normed over all heads."""
    s = sizes(f, Defaults(50_304, 4096, 11_008, 32, 32, 2048))
    bias = f.flag("attention_bias", False)
    return rope(
        f,
        {
            **s,
            "norm": "rms_float",
            "norm_placement": "post",
            "qk_norm": "full",
            "qkv_bias": bias,
            "attention_out_bias": bias,
        },
    )


FAMILIES: dict[str, Family] = {
    "granite": granite,
    "llama": llama,
    "mistral": mistral,
    "mllama_text_model": mllama,
    "olmo": olmo,
    "olmo2": olmo2,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "smollm3": smollm3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
}
