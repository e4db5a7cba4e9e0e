"""Hybrids: some layers have attention, the others mix tokens in a cheaper way.

Sources: see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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


def mixers(f: Fields, layers: int, names: Mapping[str, Mixer], default: list[Mixer]) -> tuple[Mixer, ...]:
    """The mixer of each layer by `layer_types`; () where all have attention."""
    if not f.has("layer_types"):
        found = default
    else:
        types = f.items("layer_types")
        if len(types) != layers:
            raise f.bad("layer_types", f"has {len(types)} entries for {layers} layers")
        for kind in types:
            if kind not in names:
                raise f.unsupported("layer_types", f"{str(kind)[:40]!r} layers")
        found = [names[str(kind)] for kind in types]
    return () if set(found) == {"attention"} else tuple(found)


def lfm2(f: Fields) -> Structure:
    """LFM2: gated short convolutions, and attention in some layers."""
    s = sizes(f, Defaults(65_536, 2560, 12_288, 32, 32, 128_000, kv_heads=8, tied=True))
    return rope(f, {**s, **_lfm2_layers(f, s["num_hidden_layers"]), "intermediate_size": _lfm2_inner(f, s)})


def _lfm2_layers(f: Fields, layers: int) -> Structure:
    return {
        "qk_norm": "head",
        "attention_dropout": 0.0,  # its code reads none
        "activation": "silu",
        "out_name": "out_proj",
        "mlp_names": ("w1", "w3", "w2"),
        "mixers": mixers(f, layers, {"full_attention": "attention", "conv": "conv"}, ["attention"] * layers),
        "recurrence": Recurrence(conv_size=f.size("conv_L_cache", 3), conv_bias=f.flag("conv_bias", False)),
    }


def _lfm2_inner(f: Fields, s: Structure) -> int:
    """The width of its MLP: 2/3 of the config's, up to a multiple, unless that is switched off."""
    inner: int = s["intermediate_size"]
    if not f.flag("block_auto_adjust_ff_dim", True):
        return inner
    inner = int(2 * inner / 3)
    if f.is_null("block_ffn_dim_multiplier"):
        return inner
    inner = int(f.number("block_ffn_dim_multiplier", 1.0) * inner)
    multiple = f.size("block_multiple_of", 256)
    return multiple * -(-inner // multiple)


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


FAMILIES: dict[str, Family] = {"lfm2": lfm2, "qwen3_5_text": qwen3_5}
