"""Hybrids: some layers have attention, the others mix tokens in a cheaper way.

Sources: see the package.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.catalog.families.experts import chosen_experts, no_balance
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
            if kind not in names:
                raise f.unsupported("layer_types", f"{str(kind)[:40]!r} layers")
        found = [names[str(kind)] for kind in types]
    return () if set(found) == {"attention"} else tuple(found)


_TYPES: dict[str, Mixer] = {
    "full_attention": "attention",
    "attention": "attention",
    "linear_attention": "mamba2",
    "mamba": "mamba2",
}
"""The layers of models that mix attention with Mamba 2, today's names and those of older files."""


def granitemoehybrid(f: Fields) -> Structure:
    """Granite 4 H: Mamba 2 or attention, then an MLP that all tokens share, and experts beside it in the larger ones."""
    s = sizes(f, Defaults(32_000, 4096, 11_008, 32, 32, 2048))
    layers, bias = s["num_hidden_layers"], f.flag("attention_bias", False)
    no_balance(f)
    one = f.replaced("layers_block_type", "layer_types")
    s |= {
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "embedding_multiplier": True,
        "residual_multiplier": True,
        "logits_multiplier": True,
        "mixers": mixers(one, layers, _TYPES, ["mamba2"] * layers),
        "recurrence": _granite_recurrence(f, s["hidden_size"]),
        "mlp_names": ("input_linear", "output_linear"),
        **_granite_mlp(f, s["intermediate_size"]),
    }
    position = f.text("position_embedding_type", "none")
    if position not in ("none", "nope", "rope"):
        raise f.unsupported("position_embedding_type", f"{position[:40]!r} positions")
    return rope(f, s) if position == "rope" else {**s, "position": "none"}


def _granite_mlp(f: Fields, width: int) -> Structure:
    shared = f.size("shared_intermediate_size", 1024)
    experts = f.size("num_local_experts", 8, minimum=0)
    if not experts:
        return {"mlp": "gated_fused", "intermediate_size": shared}
    chosen = chosen_experts(f, ("num_local_experts",), 8, ("num_experts_per_tok",), 2)
    return {"mlp": "experts", "expert_size": width, "router": "best_softmax", **chosen, "shared_expert_size": shared}


def _granite_recurrence(f: Fields, hidden: int) -> Recurrence:
    inner, heads = f.size("mamba_expand", 2) * hidden, f.size("mamba_n_heads", 128)
    width = inner // heads if f.config.get("mamba_d_head", "auto") == "auto" else f.size("mamba_d_head", 0)
    if heads * width != inner:
        raise f.bad("mamba_n_heads", f"is {heads}: of {width} features each they must make {inner}")
    return Recurrence(
        conv_size=f.size("mamba_d_conv", 4),
        conv_bias=f.flag("mamba_conv_bias", True),
        key_heads=f.size("mamba_n_groups", 1),
        key_dim=f.size("mamba_d_state", 256),
        value_heads=heads,
        value_dim=width,
        chunk_size=f.size("mamba_chunk_size", 256),
        proj_bias=f.flag("mamba_proj_bias", False),
    )


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
    no_balance(f)
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
            "router_normalised": f.flag("norm_topk_prob", True),
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


FAMILIES: dict[str, Family] = {"granitemoehybrid": granitemoehybrid, "lfm2": lfm2, "lfm2_moe": lfm2_moe}
