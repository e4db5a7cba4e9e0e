"""Hybrids whose other layers run a gated delta rule: Qwen 3.5.

Sources: see the package.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.catalog.families.hybrid import mixers
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
        "attention_gate": True,
        "mixers": mixers(f, layers, names, kinds),
        "recurrence": _delta_rule(f, heads),
    }
    return rope(f, found, rotary_factor(f, 0.25))


def _delta_rule(f: Fields, d: Heads) -> Recurrence:
    keys = f.size("linear_num_key_heads", d.keys, maximum=MAX_HEADS)
    values = f.size("linear_num_value_heads", d.values, maximum=MAX_HEADS)
    if values % keys:
        raise f.bad("linear_num_value_heads", f"is {values}: the {keys} key heads must divide it")
    return Recurrence(
        conv_size=f.size("linear_conv_kernel_dim", 4, maximum=1_000),
        key_heads=keys,
        value_heads=values,
        key_dim=f.size("linear_key_head_dim", d.key_dim, maximum=MAX_HEAD_DIM),
        value_dim=f.size("linear_value_head_dim", d.value_dim, maximum=MAX_HEAD_DIM),
        chunk_size=CHUNK,
    )


FAMILIES: dict[str, Family] = {"qwen3_5_text": qwen3_5}
