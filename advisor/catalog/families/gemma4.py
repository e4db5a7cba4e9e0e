"""Gemma 4: with experts, with an embedding for each layer (E2B, E4B), and in one class for all inputs (12B)."""

from __future__ import annotations

from advisor.catalog.families.experts import chosen_experts, needed
from advisor.catalog.families.sizes import (
    MAX_HEAD_DIM,
    MAX_LAYERS,
    Defaults,
    Family,
    Structure,
    activation,
    kv_heads,
    rope,
    sizes,
    sliding_layers,
)
from advisor.catalog.fields import MAX_SIZE, Fields

_GEMMA4 = Defaults(262_144, 2304, 9216, 30, 8, 131_072, kv_heads=4, head_dim=256, tied=True)
_UNIFIED = _GEMMA4._replace(positions=262_144)
LAYER_VOCABULARY = 262_144
"""Rows of the table of embeddings for each layer, where the config does not say."""


def gemma4(f: Fields) -> Structure:
    """Gemma 4: layers of full attention have wider heads, fewer key heads, and may use keys as values.

    Each layer may have an embedding of its own, the last ones may take their keys and values from the layers before.
    """
    found = _decoder(f, _GEMMA4, window=512)
    found |= layer_inputs(f, 256)
    if not f.flag("enable_moe_block", False):
        return found
    return {
        **found,
        "mlp": "experts",
        "router_linear": "router.proj",
        "shared_expert_size": found["intermediate_size"],
        "expert_size": needed(f, "moe_intermediate_size", 0, "how wide is an expert?", MAX_SIZE),
        **chosen_experts(f, ("num_experts",), 0, ("top_k_experts",), 0),
    }


def gemma4_unified(f: Fields) -> Structure:
    """Gemma 4 12B: the same layers without experts and embeddings of their own."""
    return _decoder(f, _UNIFIED, window=1024)


def _decoder(f: Fields, d: Defaults, window: int) -> Structure:
    s = sizes(f, d)
    if f.text("use_bidirectional_attention", "") == "all":
        raise f.unsupported("use_bidirectional_attention", "attention that looks ahead (an embedding model)")
    layers: int = s["num_hidden_layers"]
    slides = sliding_layers(f, layers, lambda i: bool((i + 1) % 6))
    slides[-1] = False  # its config class enforces that
    same, bias = f.flag("attention_k_eq_v", False), f.flag("attention_bias", False)
    wide, heads = _global_heads(f, s, slides, same)
    shared = shared_keys(f, slides, 0)
    found = {
        **s,
        **shared,
        "activation": activation(f, "hidden_activation", "gelu_pytorch_tanh"),
        "norm": "rms_power",
        "norm_placement": "sandwich",
        "qk_norm": "head",
        "embedding_multiplier": True,
        "keys_are_values": same,
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "final_softcap": f.has("final_logit_softcapping"),
        "sliding_window": f.size("sliding_window", window),
        "sliding_layers": tuple(slides),
        "global_head_dim": wide,
        "global_key_value_heads": heads,
        "wide_where_shared": bool(shared) and f.flag("use_double_wide_mlp", False),
    }
    return rope(f, found)


def layer_inputs(f: Fields, default: int) -> Structure:
    """The embedding that each layer gets of a token beside its hidden state, if any."""
    width = f.size("hidden_size_per_layer_input", default, minimum=0)
    if not width:
        return {}
    return {
        "layer_input_size": width,
        "layer_input_vocab": f.size("vocab_size_per_layer_input", LAYER_VOCABULARY),
    }


def shared_keys(f: Fields, slides: list[bool], default: int) -> Structure:
    """How many of the last layers take keys and values from the last of their kind before them, if any."""
    count = f.size("num_kv_shared_layers", default, minimum=0, maximum=MAX_LAYERS)
    if not count:
        return {}
    own = slides[: max(0, len(slides) - count)]
    if set(own) != set(slides):
        raise f.bad("num_kv_shared_layers", f"is {count}: a kind of layers would have nothing to take its keys from")
    return {"kv_shared_layers": count}


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
    numbers = {str(key).lstrip("0") or "0" for key in layers.config}  # written as "05"
    if numbers != full or len(widths) != 1 or len(counts) != 1:
        raise f.unsupported("per_layer_config", "layers that differ beyond sliding and full attention")
    return widths.pop(), counts.pop()


FAMILIES: dict[str, Family] = {
    "gemma4_text": gemma4,
    "gemma4_unified_text": gemma4_unified,
}
