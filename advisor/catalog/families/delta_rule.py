"""Hybrids whose other layers run a gated delta rule: Qwen 3.5, Qwen 3 Next, OLMo Hybrid.

Sources: see the package.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.catalog.families.hybrid import mixers
from advisor.catalog.families.moe import qwen_experts
from advisor.catalog.families.sizes import (
    MAX_HEAD_DIM,
    MAX_HEADS,
    Defaults,
    Family,
    Structure,
    rope,
    rotary_factor,
    sizes,
)
from advisor.catalog.fields import Fields
from advisor.specs import Mixer, Recurrence

CHUNK = 64
"""Tokens of a chunk. Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py, torch_chunk_gated_delta_rule."""


def qwen3_5(f: Fields) -> Structure:
    """Qwen 3.5: a gated delta rule, and gated attention in every fourth layer."""
    s = sizes(f, Defaults(248_320, 4096, 12_288, 32, 16, 32_768, kv_heads=4, head_dim=256))
    return _gated(f, s, "delta", Heads(16, 32, 128, 128))


def qwen3_5_moe(f: Fields) -> Structure:
    """Qwen 3.5 MoE: the same layers with experts in all of them."""
    s = sizes(f, Defaults(248_320, 2048, 512, 40, 16, 32_768, kv_heads=2, head_dim=256))
    found = _with_experts(f, s, 256, 8)
    return {**_gated(f, found, "delta", Heads(16, 32, 128, 128)), "router_normalized": True}


def qwen3_next(f: Fields) -> Structure:
    """Qwen 3 Next: the same with projections that are joined head by head, and experts."""
    s = sizes(f, Defaults(151_936, 2048, 5632, 48, 16, 32_768, kv_heads=2, head_dim=256))
    found = _with_experts(f, s, 512, 10)
    found["router_normalized"] = f.flag("norm_topk_prob", True)
    return _gated(f, found, "delta_fused", Heads(16, 32, 128, 128))


def _with_experts(f: Fields, s: Structure, count: int, per_token: int) -> Structure:
    found = qwen_experts(f, s, count, per_token, 512)
    if "num_experts" not in found:
        return found
    shared = f.size("shared_expert_intermediate_size", 512)
    return {**found, "shared_expert_size": shared, "shared_expert_gated": True}


def olmo_hybrid(f: Fields) -> Structure:
    """OLMo Hybrid: OLMo 2's attention, with norms after it, in every fourth layer; the others have them before."""
    s = sizes(f, Defaults(100_352, 3840, 11_008, 32, 30, 65_536))
    layers, heads = s["num_hidden_layers"], s["num_attention_heads"]
    kinds: list[Mixer] = ["attention" if i % 4 == 3 else "delta_apart" for i in range(layers)]
    if "attention" not in kinds:
        kinds[-1] = "attention"
    bias = f.flag("attention_bias", False)
    keys = heads if f.is_null("linear_num_key_heads") else f.size("linear_num_key_heads", heads, maximum=MAX_HEADS)
    width = int(0.75 * s["hidden_size"] / keys)
    key_dim = f.optional_size("linear_key_head_dim", width, maximum=MAX_HEAD_DIM)
    names: dict[str, Mixer] = {"full_attention": "attention", "linear_attention": "delta_apart"}
    found = mixers(f, layers, names, kinds)
    if len(set(found)) < 2:
        raise f.bad("layer_types", "must have both kinds of layers")
    recurrence = _delta_rule(f, Heads(heads, heads, key_dim, 2 * key_dim))
    doubles = f.flag("linear_allow_neg_eigval", True)
    s = {
        **s,
        "norm": "rms_float",
        "norm_placement": "post",
        "mixer_norm_placement": "pre",
        "qk_norm": "full",
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "mixers": found,
        "recurrence": recurrence.model_copy(update={"doubles_step": doubles}),
    }
    unturned = f.is_null("rope_theta") or f.part("rope_parameters").is_null("rope_theta")
    return {**s, "position": "none"} if unturned else rope(f, s)


class Heads(NamedTuple):
    """A config class's defaults for heads of keys and values, and their widths."""

    keys: int
    values: int
    key_dim: int
    value_dim: int


def _gated(f: Fields, s: Structure, mixer: Mixer, heads: Heads) -> Structure:
    """Qwen's hybrids: attention with a gate, norms of (1 + weight), RoPE on a part of each head."""
    layers, every = s["num_hidden_layers"], f.size("full_attention_interval", 4)
    kinds: list[Mixer] = ["attention" if (i + 1) % every == 0 else mixer for i in range(layers)]
    names: dict[str, Mixer] = {"full_attention": "attention", "linear_attention": mixer}
    bias = f.flag("attention_bias", False)
    found = {
        **s,
        "norm": "rms_unit_offset",
        "qk_norm": "head",
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "attention_gate": "with_queries",
        "mixers": mixers(f, layers, names, kinds),
        "recurrence": _delta_rule(f, heads),
    }
    return rope(f, found, rotary_factor(f, 0.25))


def _delta_rule(f: Fields, d: Heads) -> Recurrence:
    keys = f.optional_size("linear_num_key_heads", d.keys, maximum=MAX_HEADS)
    values = f.optional_size("linear_num_value_heads", d.values, maximum=MAX_HEADS)
    if values % keys:
        raise f.bad("linear_num_value_heads", f"is {values}: the {keys} key heads must divide it")
    return Recurrence(
        conv_size=f.size("linear_conv_kernel_dim", 4, maximum=1_000),
        key_heads=keys,
        value_heads=values,
        key_dim=f.optional_size("linear_key_head_dim", d.key_dim, maximum=MAX_HEAD_DIM),
        value_dim=f.optional_size("linear_value_head_dim", d.value_dim, maximum=MAX_HEAD_DIM),
        chunk_size=CHUNK,
    )


FAMILIES: dict[str, Family] = {
    "olmo_hybrid": olmo_hybrid,
    "qwen3_5_moe_text": qwen3_5_moe,
    "qwen3_5_text": qwen3_5,
    "qwen3_next": qwen3_next,
}
