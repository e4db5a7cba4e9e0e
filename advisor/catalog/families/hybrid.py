"""Hybrids: some layers have attention, the others mix tokens in a cheaper way.

Sources: see the package.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.catalog.families.sizes import Defaults, Family, Structure, rope, sizes
from advisor.catalog.fields import Fields
from advisor.specs import Mixer, Recurrence


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


FAMILIES: dict[str, Family] = {"lfm2": lfm2}
