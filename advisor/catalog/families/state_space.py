"""State-space models: Mamba 2's layers, alone or with attention between or beside them.

Sources: see the package.
"""

from __future__ import annotations

from advisor.catalog.families.experts import chosen_experts
from advisor.catalog.families.hybrid import mixers
from advisor.catalog.families.sizes import Defaults, Family, Structure, rope, sizes
from advisor.catalog.fields import Fields
from advisor.specs import Mixer, Recurrence

_TYPES: dict[str, Mixer] = {
    "full_attention": "attention",
    "attention": "attention",
    "linear_attention": "mamba2",
    "mamba": "mamba2",
}
"""The layers of models that mix attention with Mamba 2, today's names and those of older files."""


def granitemoehybrid(f: Fields) -> Structure:
    """Granite 4 H: Mamba 2 or attention, then an MLP that all tokens share, beside experts in the larger ones."""
    s = sizes(f, Defaults(32_000, 4096, 11_008, 32, 32, 2048))
    layers, bias = s["num_hidden_layers"], f.flag("attention_bias", False)
    one = f.replaced("layers_block_type", "layer_types")
    s |= {
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "embedding_multiplier": True,
        "residual_multiplier": True,
        "logits_multiplier": True,
        "mixers": mixers(one, layers, _TYPES, ["mamba2"] * layers),
        "recurrence": _recurrence(f, f.size("mamba_expand", 2) * s["hidden_size"]),
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


def _recurrence(f: Fields, inner: int) -> Recurrence:
    """The sizes of Mamba 2's layers, `inner` features wide, as most config.json spell them."""
    heads = f.size("mamba_n_heads", 128)
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


_BLOCKS = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "mlp": "-", "moe": "E"}
_MIXERS: dict[str, Mixer] = {"M": "mamba2", "*": "attention", "-": "none", "E": "none"}


def nemotron_h(f: Fields) -> Structure:
    """Nemotron-H, Nano v2 and 3: layers of one block each, by a pattern."""
    pattern = _pattern(f.replaced("layers_block_type", "layer_types"))
    g = f.without("num_hidden_layers").replaced("hidden_act", "mlp_hidden_act")
    d = Defaults(131_072, 4096, 21_504, len(pattern), 32, 4096, kv_heads=8, head_dim=128, activation="relu2")
    s = {**sizes(g, d), "position": "none", "norm": "rms_wide", "one_block": True, "mlp": "plain"}
    s |= {
        "mixers": tuple(_MIXERS[block] for block in pattern),
        "recurrence": _nemotron_recurrence(f),
        "mlp_names": ("up_proj", "down_proj"),
        "mlp_bias": f.flag("mlp_bias", False),
        "expert_gated": False,
    }
    if "E" not in pattern:
        return s
    latent = f.optional_size("moe_latent_size", s["hidden_size"])
    return {
        **s,
        "mlp": "experts",
        "expert_layers": tuple(block == "E" for block in pattern),
        **chosen_experts(f, ("n_routed_experts", "num_local_experts"), 8, ("num_experts_per_tok",), 2),
        "expert_size": f.size("moe_intermediate_size", 7688),
        "expert_latent": latent if f.has("moe_latent_size") else 0,
        "shared_expert_size": f.size("moe_shared_expert_intermediate_size", 7688),
        "router_normalized": f.flag("norm_topk_prob", True),
    }


def _pattern(f: Fields) -> str:
    """One letter for each layer: M mixes by Mamba 2, * by attention; - is an MLP, E has experts."""
    if f.has("layers_block_type"):
        blocks = f.items("layers_block_type")
        if not blocks or not all(isinstance(block, str) and block in _BLOCKS for block in blocks):
            raise f.bad("layers_block_type", f"must be a list of {', '.join(_BLOCKS)}")
        return "".join(_BLOCKS[block] for block in blocks)
    found = f.text("hybrid_override_pattern", "ME*-")
    if not found or not set(found) <= set(_MIXERS):
        raise f.bad("hybrid_override_pattern", f"is {found[:40]!r}: it must be made of {', '.join(_MIXERS)}")
    return found


def _nemotron_recurrence(f: Fields) -> Recurrence:
    bias = f.flag("use_bias", False)
    return Recurrence(
        conv_size=f.size(f.key_of("conv_kernel", "mamba_d_conv"), 4),
        conv_bias=f.flag(f.key_of("use_conv_bias", "mamba_conv_bias"), True),
        key_heads=f.size(f.key_of("n_groups", "mamba_n_groups"), 8),
        key_dim=f.size("ssm_state_size", 128),
        value_heads=f.size("mamba_num_heads", 128),
        value_dim=f.size("mamba_head_dim", 64),
        chunk_size=f.size(f.key_of("chunk_size", "mamba_chunk_size"), 128),
        proj_bias=bias,
    )


def bamba(f: Fields) -> Structure:
    """Bamba: Mamba 2, and attention with RoPE on half of each head in some layers."""
    s = sizes(f, Defaults(128_000, 4096, 14_336, 32, 32, 262_144, kv_heads=8))
    if f.config.get("z_loss_coefficient", 0.0):
        raise f.unsupported("z_loss_coefficient", "a second loss on the logits")
    attends, bias = f.items("attn_layer_indices"), f.flag("attention_bias", False)
    found: tuple[Mixer, ...] = tuple("attention" if i in attends else "mamba2" for i in range(s["num_hidden_layers"]))
    s |= {
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "mlp_bias": f.flag("mlp_bias", False),
        "mixers": found,
        "recurrence": _recurrence(f, f.size("mamba_expand", 2) * s["hidden_size"]),
    }
    return rope(f, s, 0.5)


def falcon_h1(f: Fields) -> Structure:
    """Falcon-H1: attention and Mamba 2 side by side in each layer, and multipliers."""
    s = sizes(f, Defaults(128_000, 4096, 14_336, 32, 32, 8192, kv_heads=8))
    normed = f.flag("mamba_rms_norm", False)
    if normed and f.flag("mamba_norm_before_gate", True):
        raise f.unsupported("mamba_norm_before_gate", "a norm before the gate of a state-space layer")
    if f.flag("projectors_bias", False) != f.flag("mamba_proj_bias", False):
        raise f.unsupported("projectors_bias", "a bias on one projection of a state-space layer alone")
    bias = f.flag("attention_bias", False)
    inner = f.size("mamba_expand", 2) * s["hidden_size"] if f.is_null("mamba_d_ssm") else f.size("mamba_d_ssm", 1024)
    return rope(
        f,
        {
            **s,
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "mlp_bias": f.flag("mlp_bias", False),
            "mixers": ("beside_mamba2",) * s["num_hidden_layers"],
            "recurrence": _recurrence(f, inner).model_copy(update={"gate_norm": normed}),
            "embedding_multiplier": True,
            "logits_multiplier": True,
        },
    )


FAMILIES: dict[str, Family] = {
    "bamba": bamba,
    "falcon_h1": falcon_h1,
    "granitemoehybrid": granitemoehybrid,
    "nemotron_h": nemotron_h,
}
