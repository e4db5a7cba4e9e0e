"""What each architecture's code builds from its config.json: one small function per family.

Structure (which linear layers exist, where biases, norms and softcaps sit) follows modeling_*.py and the
defaults of missing keys follow configuration_*.py of transformers 5.23 under src/transformers/models/<model_type>.
tests/catalog builds every family on the meta device and compares.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.catalog.families_early import bloom, gptj, mpt, opt
from advisor.catalog.families_fused import falcon, gpt2, gpt_bigcode, gpt_neox, phi, phi3
from advisor.catalog.families_gemma4 import gemma4
from advisor.catalog.families_latent import deepseek_v2, deepseek_v3, gpt_oss, llama4_text
from advisor.catalog.families_moe import granitemoe, mixtral, olmoe, qwen2_moe, qwen3_moe
from advisor.catalog.families_recent import (
    apertus,
    arcee,
    ernie4_5,
    exaone4,
    hunyuan_dense,
    ministral3,
    nemotron,
    olmo3,
    seed_oss,
)
from advisor.catalog.families_shared import (
    dots1,
    ernie4_5_moe,
    glm4_moe,
    glm4_moe_lite,
    granitemoeshared,
    hunyuan_moe,
    phimoe,
)
from advisor.catalog.fields import Fields
from advisor.catalog.sizes import (
    Defaults,
    Structure,
    activation,
    every_nth,
    rope,
    rotary_factor,
    sizes,
    sliding_layers,
    window,
    windowed,
)


def _llama(f: Fields) -> Structure:
    s = sizes(f, Defaults(32_000, 4096, 11_008, 32, 32, 2048), must_divide=True)
    bias = f.flag("attention_bias", False)
    return rope(f, {**s, "qkv_bias": bias, "attention_out_bias": bias, "mlp_bias": f.flag("mlp_bias", False)})


def _mistral(f: Fields) -> Structure:
    s = sizes(f, Defaults(32_000, 4096, 14_336, 32, 32, 131_072, kv_heads=8))
    return rope(f, {**s, "sliding_window": window(f, 4096)})


def _qwen_window(f: Fields, layers: int) -> Structure:
    if not f.flag("use_sliding_window", False):
        return {}
    first = f.size("max_window_layers", 28, minimum=0)
    return windowed(window(f, 4096), sliding_layers(f, layers, lambda i: i >= first))


def _qwen2(f: Fields) -> Structure:
    s = sizes(f, Defaults(151_936, 4096, 22_016, 32, 32, 32_768, kv_heads=32))
    return rope(f, {**s, "qkv_bias": True, **_qwen_window(f, s["num_hidden_layers"])})


def _qwen3(f: Fields) -> Structure:
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


_GEMMA: Structure = {"norm": "rms_unit_offset", "embedding_multiplier": True}


def _gemma(f: Fields) -> Structure:
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


def _gemma2(f: Fields) -> Structure:
    d = Defaults(256_000, 2304, 9216, 26, 8, 8192, kv_heads=4, head_dim=256, tied=True, activation="gelu_pytorch_tanh")
    return {
        **_gemma2_like(f, d, pattern=2),
        "attention_softcap": not f.is_null("attn_logit_softcapping"),
        "final_softcap": not f.is_null("final_logit_softcapping"),
        "default_attention": "eager",  # Gemma2PreTrainedModel._supports_sdpa is False
    }


def _gemma3(f: Fields) -> Structure:
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


def _olmo(f: Fields) -> Structure:
    s = sizes(f, Defaults(50_304, 4096, 11_008, 32, 32, 2048))
    if f.has("clip_qkv"):
        raise f.unsupported("clip_qkv", "queries, keys and values clamped in place")
    bias = f.flag("attention_bias", False)
    return rope(f, {**s, "norm": "layer_float", "norm_weight": False, "qkv_bias": bias, "attention_out_bias": bias})


def _olmo2(f: Fields) -> Structure:
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


def _smollm3(f: Fields) -> Structure:
    s = sizes(f, Defaults(128_256, 2048, 11_008, 36, 16, 32_768, kv_heads=4, tied=True))
    layers = s["num_hidden_layers"]
    every = f.size("no_rope_layer_interval", 4)
    with_rope = f.items("no_rope_layers") or [int((i + 1) % every != 0) for i in range(layers)]
    if len(with_rope) != layers or any(flag not in (0, 1) for flag in with_rope):
        raise f.bad("no_rope_layers", f"needs 0 or 1 for each of the {layers} layers")
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


def _granite(f: Fields) -> Structure:
    return {
        **_llama_without_check(f),
        "embedding_multiplier": True,
        "residual_multiplier": True,
        "logits_multiplier": True,
    }


def _llama_without_check(f: Fields) -> Structure:
    s = sizes(f, Defaults(32_000, 4096, 11_008, 32, 32, 2048))
    bias = f.flag("attention_bias", False)
    return rope(f, {**s, "qkv_bias": bias, "attention_out_bias": bias, "mlp_bias": f.flag("mlp_bias", False)})


def _stablelm(f: Fields) -> Structure:
    s = sizes(f, Defaults(50_304, 2560, 6912, 32, 32, 4096, kv_heads=32), explicit_head_dim=False)
    if f.number("hidden_dropout", 0.0) > 0:
        raise f.unsupported("hidden_dropout", "dropout after the MLP alone")
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


def _starcoder2(f: Fields) -> Structure:
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


def _cohere(f: Fields) -> Structure:
    s = sizes(f, Defaults(256_000, 8192, 22_528, 40, 64, 8192, tied=True))
    return _cohere_like(f, {**s, "qk_norm": "each" if f.flag("use_qk_norm", False) else "none"})


def _cohere2(f: Fields) -> Structure:
    """Cohere 2: sliding layers have RoPE, the full ones between them have none."""
    s = sizes(f, Defaults(256_000, 8192, 22_528, 40, 64, 8192, tied=True), explicit_head_dim=False)
    every = f.size("sliding_window_pattern", 4)
    sliding = sliding_layers(f, s["num_hidden_layers"], lambda i: bool((i + 1) % every))
    if f.is_null("sliding_window"):
        raise f.unsupported("sliding_window", "no window, hence no RoPE at all")
    nope = every_nth(f, "layer_types", [not is_sliding for is_sliding in sliding])
    return _cohere_like(f, {**s, "nope_every": nope, **windowed(window(f, 4096), sliding)})


def _glm(f: Fields) -> Structure:
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


def _glm4(f: Fields) -> Structure:
    return {**_glm(f), "norm_placement": "sandwich"}


LAYERS_OF_TWO_KINDS = frozenset({"gemma4_text"})
"""Their families read `per_layer_config`."""

FAMILIES: dict[str, Callable[[Fields], Structure]] = {
    "apertus": apertus,
    "arcee": arcee,
    "bloom": bloom,
    "cohere": _cohere,
    "cohere2": _cohere2,
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "dots1": dots1,
    "ernie4_5": ernie4_5,
    "ernie4_5_moe": ernie4_5_moe,
    "exaone4": exaone4,
    "falcon": falcon,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gemma4_text": gemma4,
    "glm": _glm,
    "glm4": _glm4,
    "glm4_moe": glm4_moe,
    "glm4_moe_lite": glm4_moe_lite,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "gptj": gptj,
    "granite": _granite,
    "granitemoe": granitemoe,
    "granitemoeshared": granitemoeshared,
    "hunyuan_v1_dense": hunyuan_dense,
    "hunyuan_v1_moe": hunyuan_moe,
    "llama": _llama,
    "llama4_text": llama4_text,
    "ministral3": ministral3,
    "mistral": _mistral,
    "mixtral": mixtral,
    "mpt": mpt,
    "nemotron": nemotron,
    "olmo": _olmo,
    "olmo2": _olmo2,
    "olmo3": olmo3,
    "olmoe": olmoe,
    "opt": opt,
    "phi": phi,
    "phi3": phi3,
    "phimoe": phimoe,
    "qwen2": _qwen2,
    "qwen2_moe": qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": qwen3_moe,
    "seed_oss": seed_oss,
    "smollm3": _smollm3,
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
}
