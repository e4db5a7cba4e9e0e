"""Hybrids: some layers have attention, the others mix tokens in a cheaper way.

Sources: see the package.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.catalog.families.experts import chosen_experts
from advisor.catalog.families.sizes import Defaults, Family, Structure, expert_layers, rope, sizes
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
            if not isinstance(kind, str) or kind not in names:
                raise f.unsupported("layer_types", f"{str(kind)[:40]!r} layers")
        found = [names[kind] for kind in types]
    return () if set(found) == {"attention"} else tuple(found)


def lfm2(f: Fields) -> Structure:
    """LFM2: gated short convolutions, and attention in some layers."""
    s = _lfm2_sizes(f, Defaults(65_536, 2560, 12_288, 32, 32, 128_000, kv_heads=8, tied=True))
    attends = f.items("full_attn_idxs") if f.has("full_attn_idxs") else list(range(s["num_hidden_layers"]))
    default: list[Mixer] = ["attention" if i in attends else "conv" for i in range(s["num_hidden_layers"])]
    inner = f.size("block_ff_dim", s["intermediate_size"])
    return rope(f, {**s, **_lfm2_layers(f, default), "intermediate_size": _lfm2_inner(f, inner)})


def lfm2_moe(f: Fields) -> Structure:
    """LFM2-MoE: the same layers with experts in all but the first."""
    s = _lfm2_sizes(f, Defaults(65_536, 2048, 7168, 32, 32, 128_000, kv_heads=8, tied=True))
    if not f.has("layer_types"):
        raise f.bad("layer_types", "is missing: which layers have attention?")
    if not f.flag("use_expert_bias", True):
        raise f.unsupported("use_expert_bias", "a router without a bias")
    layers, first = s["num_hidden_layers"], f.size("num_dense_layers", 2, minimum=0)
    s = {**s, **_lfm2_layers(f, [])}
    if first >= layers:
        return rope(f, s)
    return rope(
        f,
        {
            **s,
            "mlp": "experts",
            **chosen_experts(f, ("num_experts", "num_local_experts"), 32, ("num_experts_per_tok",), 4),
            "expert_size": f.size("moe_intermediate_size", 1792),
            **expert_layers([i >= first for i in range(layers)]),
            "router_normalized": f.flag("norm_topk_prob", True),
        },
    )


def _lfm2_sizes(f: Fields, d: Defaults) -> Structure:
    """Its sizes; early files spell `tie_word_embeddings` without the words."""
    s = sizes(f, d)
    return {**s, "tie_word_embeddings": f.flag("tie_embedding", s["tie_word_embeddings"])}


def _lfm2_layers(f: Fields, default: list[Mixer]) -> Structure:
    layers = f.size("num_hidden_layers", 32)
    return {
        "qk_norm": "head",
        "attention_dropout": 0.0,  # its code reads none
        "activation": "silu",
        "out_name": "out_proj",
        "mlp_names": ("w1", "w3", "w2"),
        "mixers": mixers(f, layers, {"full_attention": "attention", "conv": "conv"}, default),
        "recurrence": Recurrence(conv_size=f.size("conv_L_cache", 3), conv_bias=f.flag("conv_bias", False)),
    }


def _lfm2_inner(f: Fields, inner: int) -> int:
    """The width of its MLP: 2/3 of the config's, up to a multiple, unless that is switched off."""
    if not f.flag("block_auto_adjust_ff_dim", True):
        return inner
    inner = int(2 * inner / 3)
    if f.is_null("block_ffn_dim_multiplier"):
        return inner
    inner = int(f.number("block_ffn_dim_multiplier", 1.0) * inner)
    multiple = f.size("block_multiple_of", 256)
    return multiple * -(-inner // multiple)


FAMILIES: dict[str, Family] = {"lfm2": lfm2, "lfm2_moe": lfm2_moe}
