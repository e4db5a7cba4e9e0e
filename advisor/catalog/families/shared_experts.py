"""Families with shared and routed experts: GLM-4 MoE, dots.llm1, ERNIE, Hunyuan, Granite; and Phi.

Sources: see the package.
"""

from __future__ import annotations

from advisor.catalog.families.experts import MAX_EXPERTS, ExpertDefaults, chosen_experts, deepseek_mixture
from advisor.catalog.families.latent import latent
from advisor.catalog.families.sizes import (
    Defaults,
    Family,
    Structure,
    expert_layers,
    rope,
    rotary_factor,
    sizes,
    sliding_layers,
    window,
    windowed,
)
from advisor.catalog.fields import Fields


def glm4_moe(f: Fields) -> Structure:
    """GLM 4.5 and 4.6: grouped attention with partial RoPE, DeepSeek V3's experts behind dense layers."""
    s = sizes(f, Defaults(151_552, 4096, 10_944, 46, 96, 131_072, kv_heads=8))
    s = rope(
        f,
        {
            **s,
            "qkv_bias": f.flag("attention_bias", False),
            "qk_norm": "head" if f.flag("use_qk_norm", False) else "none",
            "router_normalized": f.flag("norm_topk_prob", True),
        },
        rotary_factor(f, 0.5),
    )
    return deepseek_mixture(f, s, f.size("first_k_dense_replace", 1, minimum=0), ExpertDefaults(128, 8, 1408, 1))


def glm4_moe_lite(f: Fields) -> Structure:
    """GLM 4.7 Flash: DeepSeek V3 with a list of the layers that have experts."""
    s = sizes(f, Defaults(154_880, 2048, 10_240, 47, 20, 202_752, kv_heads=20, head_dim=64))
    if not f.flag("rope_interleave", True):
        raise f.unsupported("rope_interleave", "RoPE on halves of a head")
    layers = s["num_hidden_layers"]
    types = f.items("mlp_layer_types") or ["dense"] + ["sparse"] * (layers - 1)
    if len(types) != layers or not set(types) <= {"dense", "sparse"}:
        raise f.bad("mlp_layer_types", f"must be a list of 'dense' or 'sparse' for each of the {layers} layers")
    first = types.index("sparse") if "sparse" in types else layers
    s["router_normalized"] = f.flag("norm_topk_prob", True)
    s = latent(f, s, plain=192, value=256, q_rank=768)
    if f.optional_size("head_dim", s["rotary_dim"]) != s["rotary_dim"]:  # transformers takes both names for one field
        raise f.bad("head_dim", f"differs from qk_rope_head_dim, which is {s['rotary_dim']}: give one of the two")
    found = deepseek_mixture(f, s, first, ExpertDefaults(64, 4, 1536, 1))
    return found | expert_layers([kind == "sparse" for kind in types]) if first < layers else found


def dots1(f: Fields) -> Structure:
    """dots.llm1: Qwen 3's attention, DeepSeek V3's experts."""
    s = sizes(f, Defaults(152_064, 4608, 10_944, 62, 32, 2048, kv_heads=32))
    layers, size = s["num_hidden_layers"], window(f, 4096)
    late = f.size("max_window_layers", 62, minimum=0)
    slides = sliding_layers(f, layers, lambda i: bool(size) and i >= late)
    if any(slides) and not size:
        raise f.bad("sliding_window", "is null, but some layers have a sliding window")
    bias = f.flag("attention_bias", False)
    s = rope(
        f,
        {
            **s,
            "qk_norm": "head",
            "qkv_bias": bias,
            "attention_out_bias": bias,
            **windowed(size, slides),
            "router_normalized": f.flag("norm_topk_prob", False),
        },
    )
    return deepseek_mixture(f, s, f.size("first_k_dense_replace", 0, minimum=0), ExpertDefaults(0, 0, 1408, 0))


def ernie4_5_moe(f: Fields) -> Structure:
    """ERNIE 4.5 MoE: ERNIE's attention, a router in fp32 whatever the base, experts in some layers."""
    s = sizes(f, Defaults(103_424, 2560, 12_288, 28, 20, 131_072, kv_heads=4, tied=True))
    bias, layers = f.flag("use_bias", False), s["num_hidden_layers"]
    s = rope(
        f,
        {
            **s,
            "attention_dropout": 0.0,
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "mlp_bias": bias,
            "lm_head_bias": bias,
        },
    )
    end = f.size("moe_layer_end_index", -1, minimum=-1)
    start, every = f.size("moe_layer_start_index", 1, minimum=0), f.size("moe_layer_interval", 1)
    mixed = [(i + 1) % every == 0 and start <= i <= (layers - 1 if end == -1 else end) for i in range(layers)]
    if not any(mixed):
        return s
    width = f.size("moe_intermediate_size", 1536)
    return {
        **s,
        "mlp": "experts",
        "expert_size": width,
        **expert_layers(mixed),
        **chosen_experts(f, ("moe_num_experts", "num_experts"), 64, ("moe_k", "num_experts_per_tok"), 6),
        "shared_expert_size": width * f.size("moe_num_shared_experts", 2, minimum=0),
    }


def hunyuan_moe(f: Fields) -> Structure:
    """Hunyuan A13B and Large: Hunyuan's attention, a router that is a linear layer in fp32, one shared expert."""
    s = sizes(f, Defaults(290_943, 4096, 11_008, 32, 32, 2048))
    bias = f.flag("attention_bias", False)
    one = f.one_for_all("moe_topk", "num_experts_per_tok")
    return rope(
        f,
        {
            **s,
            "qk_norm": "head",
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "mlp": "experts",
            **chosen_experts(one, ("num_experts", "num_local_experts"), 1, ("moe_topk", "num_experts_per_tok"), 1),
            "expert_size": s["intermediate_size"],
            "shared_expert_size": s["intermediate_size"],
            "router_linear": "gate.wg",
        },
    )


def granitemoeshared(f: Fields) -> Structure:
    """Granite MoE with an expert that all tokens share."""
    s = sizes(f, Defaults(32_000, 4096, 11_008, 32, 32, 2048))
    bias = f.flag("attention_bias", False)
    return rope(
        f,
        {
            **s,
            "mlp": "experts",
            "expert_size": s["intermediate_size"],
            "router": "best_softmax",
            "qkv_bias": bias,
            **chosen_experts(f, ("num_local_experts", "num_experts"), 8, ("num_experts_per_tok",), 2),
            "attention_out_bias": bias,
            "embedding_multiplier": True,
            "residual_multiplier": True,
            "logits_multiplier": True,
            "shared_expert_size": f.size("shared_intermediate_size", 0, minimum=0),
            "mlp_names": ("input_linear", "output_linear"),
        },
    )


def phimoe(f: Fields) -> Structure:
    """Phi 3.5 MoE: LayerNorm, a router that draws two experts (SparseMixer) and may jitter its input."""
    s = sizes(f, Defaults(32_064, 4096, 6400, 32, 32, 131_072, kv_heads=8))
    bias = f.flag("attention_bias", False)
    if f.size("num_experts_per_tok", 2, maximum=MAX_EXPERTS) != 2:
        raise f.unsupported("num_experts_per_tok", "other than two experts a token, which its router always draws")
    return rope(
        f,
        {
            **s,
            "norm": "layer",
            "norm_bias": True,
            "mlp": "experts",
            "expert_size": s["intermediate_size"],
            **chosen_experts(f, ("num_local_experts", "num_experts"), 16, ("num_experts_per_tok",), 2),
            "router_jitter": f.number("input_jitter_noise", 0.0) > 0,
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "lm_head_bias": f.flag("lm_head_bias", False),
            "mlp_names": (),
            "sliding_window": window(f, 0) if f.has("sliding_window") else 0,
        },
    )


FAMILIES: dict[str, Family] = {
    "dots1": dots1,
    "ernie4_5_moe": ernie4_5_moe,
    "glm4_moe": glm4_moe,
    "glm4_moe_lite": glm4_moe_lite,
    "granitemoeshared": granitemoeshared,
    "hunyuan_v1_moe": hunyuan_moe,
    "phimoe": phimoe,
}
