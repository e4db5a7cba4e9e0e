"""Gemma 4: two kinds of layers whose heads differ. Sources as in `families.py`."""

from __future__ import annotations

from advisor.catalog.experts import chosen_experts, needed
from advisor.catalog.fields import MAX_SIZE, Fields
from advisor.catalog.sizes import (
    MAX_HEAD_DIM,
    Defaults,
    Structure,
    activation,
    kv_heads,
    rope,
    sizes,
    sliding_layers,
)


def gemma4(f: Fields) -> Structure:
    """Gemma 4: full layers have wider heads, fewer of them for keys, and may take keys for values."""
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
    slides[-1] = False  # its config class sees to that
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
