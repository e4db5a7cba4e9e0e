"""Dense families of 2024 and later that differ from Llama in a norm, an activation or a window.

Sources: see the package.
"""

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


def _head_dim(f: Fields, default: int) -> int:
    """The default of `head_dim` where null means hidden_size / heads."""
    return 0 if f.is_null("head_dim") else default


def _biases(f: Fields, default: bool = False) -> Structure:
    bias = f.flag("attention_bias", default)
    return {"qkv_bias": bias, "attention_out_bias": bias}


def seed_oss(f: Fields) -> Structure:
    """Seed-OSS: a Llama with biased queries, keys and values, and dropout inside its blocks."""
    d = Defaults(155_136, 4096, 27_648, 64, 80, 524_288, kv_heads=8, head_dim=_head_dim(f, 128))
    return rope(
        f,
        {
            **sizes(f, d),
            "qkv_bias": f.flag("attention_bias", True),
            "attention_out_bias": f.flag("attention_out_bias", False),
            "mlp_bias": f.flag("mlp_bias", False),
            "attention_dropout": f.number("attention_dropout", 0.1),
            "residual_dropout": f.number("residual_dropout", 0.1),
        },
    )


def ernie4_5(f: Fields) -> Structure:
    """ERNIE 4.5: a Llama that applies RoPE in fp32, on neighboring features."""
    d = Defaults(103_424, 1024, 3072, 18, 16, 131_072, kv_heads=2, head_dim=_head_dim(f, 128), tied=True)
    bias = f.flag("use_bias", False)
    s = {**sizes(f, d), "attention_dropout": 0.0}  # its code reads none
    return rope(f, {**s, "qkv_bias": bias, "attention_out_bias": bias, "mlp_bias": bias})


def arcee(f: Fields) -> Structure:
    """Arcee's AFM: a Llama with a plain MLP of squared ReLU."""
    d = Defaults(32_000, 2560, 18_432, 32, 32, 4096, activation="relu2")
    return rope(
        f,
        {
            **sizes(f, d, must_divide=True),
            **_biases(f),
            "mlp": "plain",
            "mlp_names": ("up_proj", "down_proj"),
            "mlp_bias": f.flag("mlp_bias", False),
        },
    )


def nemotron(f: Fields) -> Structure:
    """Nemotron 3 and 4, Minitron: LayerNorm of (1 + weight), partial RoPE, a plain MLP of squared ReLU."""
    d = Defaults(256_000, 6144, 24_576, 32, 48, 4096, activation="relu2")
    return rope(
        f,
        {
            **sizes(f, d),
            **_biases(f),
            "norm": "layer_unit_offset",
            "norm_bias": True,
            "mlp": "plain",
            "mlp_names": ("up_proj", "down_proj"),
            "mlp_bias": f.flag("mlp_bias", False),
        },
        rotary_factor(f, 0.5),
    )


def olmo3(f: Fields) -> Structure:
    """OLMo 3: OLMo 2 with a sliding window in three layers of four, and rotary tables for each kind."""
    s = sizes(f, Defaults(50_304, 4096, 11_008, 32, 32, 2048), explicit_head_dim=f.has("head_dim"))
    slides = sliding_layers(f, s["num_hidden_layers"], lambda i: bool((i + 1) % 4))
    if f.is_null("sliding_window"):
        raise f.unsupported("sliding_window", "sliding layers without a window")
    return rope(
        f,
        {
            **s,
            **_biases(f),
            "norm": "rms_float",
            "norm_placement": "post",
            "qk_norm": "full",
            **windowed(window(f, 4096), slides),
        },
    )


def exaone4(f: Fields) -> Structure:
    """EXAONE 4: norms after the blocks and per head; with a window, full layers have no RoPE."""
    s = sizes(f, Defaults(102_400, 4096, 16_384, 32, 32, 2048, kv_heads=32))
    size, types = window(f, 4096), f.has("layer_types")
    every = 0 if types else f.size("sliding_window_pattern", 4, minimum=0 if not size else 1)
    if not size and not types:
        raise f.bad("layer_types", "is missing: without a sliding_window it must name every layer's attention")
    slides = sliding_layers(f, s["num_hidden_layers"], lambda i: bool((i + 1) % every))
    if not size and any(slides):
        raise f.unsupported("sliding_window", "sliding layers without a window")
    return rope(
        f,
        {
            **s,
            "norm_placement": "post",
            "qk_norm": "head",
            **windowed(size, slides),
            "nope_every": every_nth(f, "layer_types", [not s for s in slides]) if size else 0,
        },
    )


def hunyuan_dense(f: Fields) -> Structure:
    """Hunyuan's dense models: a Llama with norms of queries and keys after RoPE."""
    d = Defaults(290_943, 4096, 11_008, 32, 32, 2048)
    return rope(f, {**sizes(f, d), **_biases(f), "qk_norm": "head"})


def ministral3(f: Fields) -> Structure:
    """Ministral 3: a Mistral that scales its queries by their position."""
    d = Defaults(131_072, 4096, 14_336, 34, 32, 262_144, kv_heads=8, head_dim=_head_dim(f, 128))
    return rope(f, {**sizes(f, d), "sliding_window": window(f, 0) if f.has("sliding_window") else 0})


def apertus(f: Fields) -> Structure:
    """Apertus: a Llama with norms of queries and keys and a plain MLP whose activation learns two numbers."""
    d, learns = Defaults(131_072, 4096, 14_336, 32, 32, 65_536), f.text("hidden_act", "xielu") == "xielu"
    s = sizes(f.without("hidden_act") if learns else f, d)
    if learns:
        s["activation"] = "xielu"
    return rope(f, {**s, **_biases(f), "qk_norm": "head", "mlp": "plain", "mlp_names": ("up_proj", "down_proj")})


FAMILIES: dict[str, Family] = {
    "apertus": apertus,
    "arcee": arcee,
    "ernie4_5": ernie4_5,
    "exaone4": exaone4,
    "hunyuan_v1_dense": hunyuan_dense,
    "ministral3": ministral3,
    "nemotron": nemotron,
    "olmo3": olmo3,
    "seed_oss": seed_oss,
}
