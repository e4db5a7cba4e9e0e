"""Families with latent or chunked attention: DeepSeek V2 and V3, Llama 4, gpt-oss. Sources: see the package."""

from __future__ import annotations

from advisor.catalog.families.experts import ExpertDefaults, deepseek_mixture
from advisor.catalog.families.sizes import (
    MAX_HEAD_DIM,
    MAX_POSITIONS,
    Defaults,
    Family,
    Structure,
    every_nth,
    expert_layers,
    rope,
    sizes,
    sliding_layers,
    window,
    windowed,
)
from advisor.catalog.fields import Fields

KV_NAMES = ("kv_a_proj_with_mqa", "kv_b_proj")


def latent(
    f: Fields, s: Structure, plain: int = 128, value: int = 128, q_rank: int = 1536, kv_rank: int = 512
) -> Structure:
    """The projections through latents, and the two parts of a head: one that RoPE rotates and one that it leaves.

    The defaults: `plain`, the part that RoPE leaves; `value`, a value head; `q_rank` and `kv_rank`, the latents.
    """
    plain, turned = f.size("qk_nope_head_dim", plain), f.size("qk_rope_head_dim", 64)
    if s["num_key_value_heads"] != s["num_attention_heads"]:
        raise f.bad("num_key_value_heads", f"is {s['num_key_value_heads']}: latent attention has one per query head")
    if plain + turned > MAX_HEAD_DIM or turned % 2:
        raise f.bad("qk_rope_head_dim", f"is {turned}: it must be even and small enough for one head")
    q_rank = 0 if f.is_null("q_lora_rank") else f.size("q_lora_rank", q_rank, maximum=MAX_HEAD_DIM)
    bias = f.flag("attention_bias", False)
    found = rope(
        f,
        {
            **s,
            "head_dim": turned,
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "q_lora_rank": q_rank,
            "kv_lora_rank": f.size("kv_lora_rank", kv_rank, maximum=MAX_HEAD_DIM),
            "v_head_dim": f.optional_size("v_head_dim", value, maximum=MAX_HEAD_DIM),
            "qkv_names": (*(("q_a_proj", "q_b_proj") if q_rank else ("q_proj",)), *KV_NAMES),
        },
    )
    return {**found, "head_dim": plain + turned, "rotary_dim": turned}


def deepseek_v2(f: Fields) -> Structure:
    """DeepSeek V2: RoPE on complex numbers."""
    s = sizes(f, Defaults(102_400, 4096, 11_008, 32, 32, 2048, head_dim=64), must_divide=True)
    s["mlp_bias"] = f.flag("mlp_bias", False)
    if f.text("topk_method", "greedy") not in ("greedy", "group_limited_greedy"):
        raise f.unsupported("topk_method", "another way of picking experts")
    first = f.size("first_k_dense_replace", 0, minimum=0)
    return deepseek_mixture(f, latent(f, s), first, ExpertDefaults(64, 0, 1407, 2))


def deepseek_v3(f: Fields) -> Structure:
    """DeepSeek V3 and R1."""
    s = sizes(f, Defaults(129_280, 7168, 18_432, 61, 128, 4096, kv_heads=128, head_dim=64))
    if not f.flag("rope_interleave", True):
        raise f.unsupported("rope_interleave", "RoPE on halves of a head")
    s["router_normalized"] = f.flag("norm_topk_prob", True)
    first = f.size("first_k_dense_replace", 3, minimum=0)
    return deepseek_mixture(f, latent(f, s), first, ExpertDefaults(256, 8, 2048, 1))


def llama4_text(f: Fields) -> Structure:
    """Llama 4: layers with RoPE look at chunks of the row, layers without it at the whole row."""
    s = sizes(f, Defaults(202_048, 5120, 8192, 48, 40, 131_072, kv_heads=8, head_dim=128))
    layers = s["num_hidden_layers"]
    every = f.size("no_rope_layer_interval", 4)
    with_rope = f.items("no_rope_layers") or [int((i + 1) % every != 0) for i in range(layers)]
    if len(with_rope) != layers or any(flag not in (0, 1) for flag in with_rope):
        raise f.bad("no_rope_layers", f"must be a list of 0 or 1 for each of the {layers} layers")
    chunked = _chunked_layers(f, layers, [bool(flag) for flag in with_rope])
    if f.is_null("attention_chunk_size") and any(chunked):
        raise f.bad("attention_chunk_size", "is null, but some layers look at chunks")
    step = f.size("interleave_moe_layer_step", 1)
    mixed = f.items("moe_layers") if f.has("moe_layers") else list(range(step - 1, layers, step))
    if any(type(i) is not int or not 0 <= i < layers for i in mixed):
        raise f.bad("moe_layers", f"must list indices of the {layers} layers, counted from 0")
    if mixed:
        count = f.size(f.key_of("num_local_experts", "num_experts"), 16, maximum=100_000)
        per_token = f.size("num_experts_per_tok", 1, maximum=count)
        s |= {
            "mlp": "llama4_experts",
            "num_experts": count,
            "experts_per_token": per_token,
            "expert_size": s["intermediate_size"],
            "shared_expert_size": s["intermediate_size"],
            **expert_layers([i in mixed for i in range(layers)]),
        }
    bias = f.flag("attention_bias", False)
    return rope(
        f,
        {
            **s,
            "intermediate_size": f.size("intermediate_size_mlp", 16_384),
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "qk_norm": "unit" if f.flag("use_qk_norm", True) else "none",
            "attention_temperature": f.flag("attn_temperature_tuning", True),
            "nope_every": every_nth(f, "no_rope_layers", [not flag for flag in with_rope]),
            **windowed(f.size("attention_chunk_size", 8192, maximum=MAX_POSITIONS), chunked),
        },
    )


def _chunked_layers(f: Fields, layers: int, default: list[bool]) -> list[bool]:
    """Which layers attend within a chunk of the row."""
    types = f.items("layer_types")
    if not types:
        return default
    if len(types) != layers:
        raise f.bad("layer_types", f"has {len(types)} entries for {layers} layers")
    for kind in types:
        if kind not in ("full_attention", "chunked_attention"):
            raise f.unsupported("layer_types", f"{str(kind)[:40]!r} layers")
    return [kind == "chunked_attention" for kind in types]


def _experts(f: Fields) -> int:
    return f.size(f.key_of("num_local_experts", "num_experts"), 128, maximum=100_000)


def _per_token(f: Fields) -> int:
    found = f.size("num_experts_per_tok", 4, maximum=100_000)
    if found > _experts(f):
        raise f.bad("num_experts_per_tok", f"is {found}: there are {_experts(f)} experts")
    return found


def gpt_oss(f: Fields) -> Structure:
    """gpt-oss: eager attention with sinks, through a window in every second layer; experts in every layer."""
    s = sizes(f, Defaults(201_088, 2880, 2880, 36, 64, 131_072, kv_heads=8, head_dim=64))
    bias = f.flag("attention_bias", True)
    slides = sliding_layers(f, s["num_hidden_layers"], lambda i: i % 2 == 0)
    if f.is_null("sliding_window") and any(slides):
        raise f.bad("sliding_window", "is null, but some layers have a sliding window")
    return rope(
        f,
        {
            **s,
            "norm": "rms_float",
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "attention_sinks": True,
            "mlp": "oss_experts",
            "mlp_names": (),
            "num_experts": _experts(f),
            "experts_per_token": _per_token(f),
            "default_attention": "eager",  # GptOssPreTrainedModel._supports_sdpa is False
            **windowed(window(f, 128), slides),
        },
    )


FAMILIES: dict[str, Family] = {
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "gpt_oss": gpt_oss,
    "llama4_text": llama4_text,
}
