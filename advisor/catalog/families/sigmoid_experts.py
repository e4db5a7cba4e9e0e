"""Families whose experts are scored by a sigmoid, newer than DeepSeek V3, and Mistral 4. Sources: see the package."""

from __future__ import annotations

from advisor.catalog.families.experts import ExpertDefaults, chosen_experts, deepseek_mixture
from advisor.catalog.families.latent import latent
from advisor.catalog.families.sizes import (
    MAX_HEAD_DIM,
    MAX_HEADS,
    Defaults,
    Family,
    Structure,
    every_nth,
    expert_layers,
    rope,
    rotary_factor,
    sizes,
    sliding_layers,
    window,
    windowed,
)
from advisor.catalog.fields import Fields


def mlp_layers(f: Fields, layers: int, dense: int) -> list[bool]:
    """Which layers have experts: `mlp_layer_types`, or all but the first `dense`."""
    types = f.items("mlp_layer_types") or [("dense", "sparse")[i >= dense] for i in range(layers)]
    if len(types) != layers or not set(types) <= {"dense", "sparse"}:
        raise f.bad("mlp_layer_types", f"must be a list of 'dense' or 'sparse' for each of the {layers} layers")
    return [kind == "sparse" for kind in types]


def minimax_m2(f: Fields) -> Structure:
    """MiniMax M2: norms over all heads of queries and keys, partial RoPE, experts alone in every layer."""
    s = sizes(f, Defaults(200_064, 3072, 1536, 62, 48, 196_608, kv_heads=8, head_dim=128))
    if f.number("router_jitter_noise", 0.0) > 0:
        raise f.unsupported("router_jitter_noise", "noise on the router's input")
    turned = f.optional_size("rotary_dim", 0, maximum=MAX_HEAD_DIM)  # the old spelling of the factor
    factor = rotary_factor(f, turned / s["head_dim"] if turned else 1.0)
    chosen = chosen_experts(f, ("num_local_experts", "num_experts"), 256, ("num_experts_per_tok",), 8)
    experts = {"mlp": "experts", "mlp_names": (), "expert_size": s["intermediate_size"], **chosen}
    return rope(f, {**s, **experts, "qk_norm": "full"}, factor)


def solar_open(f: Fields) -> Structure:
    """Solar Open: Llama's attention, DeepSeek V3's experts in every layer."""
    s = sizes(f, Defaults(196_608, 4096, 1280, 48, 64, 131_072, kv_heads=8, head_dim=128))
    if rotary_factor(f, 1.0) != 1:
        raise f.unsupported("partial_rotary_factor", "RoPE on a part of each head")
    s |= {"qkv_bias": f.flag("attention_bias", False), "router_normalized": f.flag("norm_topk_prob", True)}
    return deepseek_mixture(f, rope(f, s), 0, ExpertDefaults(128, 8, 1280, 1))


def mistral4(f: Fields) -> Structure:
    """Mistral 4: latent attention that scales its queries by their position, experts beside a shared one."""
    s = sizes(f, Defaults(131_072, 4096, 12_288, 36, 32, 1_048_576, kv_heads=32, head_dim=128))
    if not f.flag("rope_interleave", True):
        raise f.unsupported("rope_interleave", "RoPE on halves of a head")
    s["router_normalized"] = f.flag("norm_topk_prob", True)
    s = latent(f, s, plain=64, q_rank=1024, kv_rank=256)
    return deepseek_mixture(f, s, f.size("first_k_dense_replace", 0, minimum=0), ExpertDefaults(128, 4, 2048, 1))


def afmoe(f: Fields) -> Structure:
    """Trinity: a gate on the attention's output, norms before and after each block, RoPE in sliding layers alone."""
    s = sizes(f, Defaults(200_192, 2048, 6144, 32, 16, 16_384, head_dim=128))
    bias, layers = f.flag("attention_bias", False), s["num_hidden_layers"]
    every, dense = f.size("global_attn_every_n_layers", 4), f.size("num_dense_layers", 1, minimum=0)
    slides = sliding_layers(f, layers, lambda i: bool((i + 1) % every))
    if f.is_null("sliding_window") and any(slides):
        raise f.bad("sliding_window", "is null, but some layers have a sliding window")
    s = rope(
        f,
        {
            **s,
            "norm": "rms_float",
            "norm_placement": "sandwich",
            "qk_norm": "head",
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "attention_gate": "feature",
            "embedding_multiplier": f.flag("mup_enabled", False),
            "nope_every": every_nth(f, "layer_types", [not one for one in slides]),
            **windowed(window(f, 1024), slides),
        },
    )
    if dense >= layers:
        return s
    width = f.size("moe_intermediate_size", 1408)
    return {
        **s,
        "mlp": "experts",
        "expert_size": width,
        "router_linear": "router.gate",
        **expert_layers([i >= dense for i in range(layers)]),
        **chosen_experts(f, ("num_experts",), 64, ("num_experts_per_tok",), 6),
        "shared_expert_size": width * f.size("num_shared_experts", 2),
    }


def laguna(f: Fields) -> Structure:
    """Laguna: a gate by head on the attention's output, rotary tables of their own for each kind of layer."""
    s = sizes(f, Defaults(100_352, 2048, 8192, 40, 48, 131_072, kv_heads=8, head_dim=128))
    bias, layers = f.flag("attention_bias", False), s["num_hidden_layers"]
    if set(f.items("num_attention_heads_per_layer")) - {s["num_attention_heads"]}:
        raise f.unsupported("num_attention_heads_per_layer", "layers with different numbers of heads")
    gating = f.config.get("gating", True)
    if gating not in (True, "per-head", "per-element"):
        raise f.bad("gating", "must be true, 'per-head' or 'per-element'")
    slides = sliding_layers(f, layers, lambda i: False)
    s |= {
        "qk_norm": "head",
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "attention_gate": "feature" if gating == "per-element" else "head",
        **_turned(f, s, slides, {"full_attention": 0.5, "sliding_attention": 1.0}, 1.0),
        **windowed(f.size("sliding_window", 512), slides),
    }
    mixed = mlp_layers(f, layers, 1)
    if not any(mixed):
        return s
    return {
        **s,
        "mlp": "experts",
        "expert_size": f.size("moe_intermediate_size", 512),
        **expert_layers(mixed),
        **chosen_experts(f, ("num_experts",), 256, ("num_experts_per_tok",), 8),
        "shared_expert_size": f.size("shared_expert_intermediate_size", 512),
        "router_softcap": f.config.get("moe_router_logit_softcapping") not in (None, 0, 0.0),
    }


def _turned(f: Fields, s: Structure, slides: list[bool], default: dict[str, float], missing: float) -> Structure:
    """How much of a head RoPE rotates in each kind of layer: shares by `rope_parameters`, or the `default` ones.

    `missing`: where a kind is given without its share.
    """
    given = f.part("rope_parameters")
    shares = {
        kind: given.part(kind).number("partial_rotary_factor", missing) if f.has("rope_parameters") else share
        for kind, share in default.items()
    }
    full, sliding = (int(s["head_dim"] * shares[kind]) for kind in ("full_attention", "sliding_attention"))
    if any(width < 2 or width % 2 for width in (full, sliding)):
        raise f.bad("rope_parameters", f"must rotate an even number of the {s['head_dim']} features of a head")
    found: Structure = {"position": "rope", "rotary_dim": sliding if all(slides) else full}
    if any(slides) and not all(slides) and sliding != full:
        found["sliding_rotary_dim"] = sliding
    return found


def mimo_v2_flash(f: Fields) -> Structure:
    """MiMo V2: eager attention; sliding layers have twice the keys and values, and sinks."""
    s = sizes(f, Defaults(152_576, 4096, 16_384, 48, 64, 131_072, kv_heads=4, head_dim=192))
    layers, keys = s["num_hidden_layers"], s["num_key_value_heads"]
    slides = sliding_layers(f, layers, lambda i: i > 0 and bool((i + 1) % 6))
    if any(slides) and s["num_attention_heads"] % (2 * keys):
        raise f.bad("num_key_value_heads", f"is {keys}: twice as many must divide the {s['num_attention_heads']} heads")
    size = f.size("sliding_window_size", 0) + 1 if f.has("sliding_window_size") else f.size("sliding_window", 129)
    share = {"full_attention": 0.334, "sliding_attention": 0.334}
    s |= {
        "qkv_bias": f.flag("attention_bias", False),
        "v_head_dim": f.size("v_head_dim", 128, maximum=MAX_HEAD_DIM),
        "default_attention": "eager",  # MiMoV2FlashPreTrainedModel._supports_sdpa is False
        "router_normalized": f.flag("norm_topk_prob", True),
        **_turned(f, s, slides, share, 0.334),
        **windowed(size, slides),
    }
    if any(slides):
        s |= {"num_key_value_heads": 2 * keys, "attention_sinks": True}
    if any(slides) and not all(slides):
        s |= {"global_head_dim": s["head_dim"], "global_key_value_heads": keys, "sinks_slide": True}
    mixed = mlp_layers(f, layers, 1)
    if not any(mixed):
        return s
    counts = "n_routed_experts", "num_experts", "num_local_experts"
    return {
        **s,
        "mlp": "experts",
        "expert_size": f.size("moe_intermediate_size", 2048),
        **expert_layers(mixed),
        **chosen_experts(f, counts, 256, ("num_experts_per_tok",), 8),
    }


def _sparse(f: Fields, s: Structure, heads: int, defaults: tuple[int, int, int], q_rank: int) -> Structure:
    """DeepSeek V3's layers with an indexer of that many heads.

    `defaults`: the part of a head that RoPE leaves, a value head, and how many layers are dense.
    """
    plain, value, dense = defaults
    if f.is_null("q_lora_rank"):
        raise f.bad("q_lora_rank", "is null: the indexer reads the queries' latent")
    s["router_normalized"] = f.flag("norm_topk_prob", True)
    s = latent(f, s, plain=plain, value=value, q_rank=q_rank)
    width = f.size("index_head_dim", 128, maximum=MAX_HEAD_DIM)
    if width <= s["rotary_dim"]:
        raise f.bad("index_head_dim", f"is {width}: RoPE rotates {s['rotary_dim']} of its features")
    s |= {
        "index_heads": f.size("index_n_heads", heads, maximum=MAX_HEADS),
        "index_head_dim": width,
        "index_topk": f.size("index_topk", 2048),
    }
    layers = s["num_hidden_layers"]
    mixed = mlp_layers(f, layers, f.size("first_k_dense_replace", dense, minimum=0))
    if not any(mixed):
        return s
    return deepseek_mixture(f, s, 0, ExpertDefaults(256, 8, 2048, 1)) | expert_layers(mixed)


def deepseek_v32(f: Fields) -> Structure:
    """DeepSeek V3.2: V3 with an indexer in every layer."""
    s = sizes(f, Defaults(129_280, 7168, 18_432, 61, 128, 163_840, kv_heads=128, head_dim=64))
    return _sparse(f, s, 64, (128, 128, 3), 1536)


def glm_moe_dsa(f: Fields) -> Structure:
    """GLM 5: an indexer in every layer, or in some, whose choice the layers after them take over."""
    s = sizes(f, Defaults(154_880, 6144, 12_288, 78, 64, 202_752, kv_heads=64, head_dim=64))
    found = _sparse(f, s, 32, (192, 256, 3), 2048)
    types = _indexers(f, s["num_hidden_layers"])
    return found if all(types) else {**found, "choosing_layers": tuple(types)}


def _indexers(f: Fields, layers: int) -> list[bool]:
    """Which layers have an indexer: `indexer_types`, or by a pattern of F and S, or every few layers from one on."""
    types: list[object] = f.items("indexer_types")
    if not types and isinstance(f.config.get("index_topk_pattern"), str):
        types = [{"F": "full", "S": "shared"}.get(one) for one in f.text("index_topk_pattern", "")]
    elif not types:
        types = list(f.items("index_topk_pattern"))
    if not types:
        every, first = max(f.size("index_topk_freq", 1, minimum=0), 1), f.size("index_skip_topk_offset", 2, minimum=0)
        return [max(i - first + 1, 0) % every == 0 for i in range(layers)]
    if len(types) != layers or not set(types) <= {"full", "shared"} or types[0] != "full":
        raise f.bad("indexer_types", f"must be 'full' or 'shared' for each of the {layers} layers, the first 'full'")
    return [kind == "full" for kind in types]


def hy_v3(f: Fields) -> Structure:
    """Hunyuan 3: norms of queries and keys, experts beside a shared one behind a dense layer."""
    s = sizes(f, Defaults(120_832, 4096, 13_312, 80, 64, 131_072, kv_heads=8, head_dim=128))
    bias, mlp_bias = f.flag("attention_bias", False), f.flag("mlp_bias", False)
    s = rope(f, {**s, "qk_norm": "head", "qkv_bias": bias, "attention_out_bias": bias, "mlp_bias": mlp_bias})
    mixed = mlp_layers(f, s["num_hidden_layers"], 1)
    if not any(mixed):
        return s
    width = f.size("moe_intermediate_size", 1536)
    return {
        **s,
        "mlp": "experts",
        "expert_size": width,
        **expert_layers(mixed),
        **chosen_experts(f, ("num_experts", "num_local_experts"), 192, ("num_experts_per_tok",), 8),
        "shared_expert_size": width * f.size("num_shared_experts", 1),
        "experts_summed_in_float": f.flag("enable_moe_fp32_combine", True),
    }


FAMILIES: dict[str, Family] = {
    "afmoe": afmoe,
    "deepseek_v32": deepseek_v32,
    "glm_moe_dsa": glm_moe_dsa,
    "hy_v3": hy_v3,
    "laguna": laguna,
    "mimo_v2_flash": mimo_v2_flash,
    "minimax_m2": minimax_m2,
    "mistral4": mistral4,
    "solar_open": solar_open,
}
