"""State-space models: Mamba 2's layers, alone or with attention between or beside them.

Sources: see the package.
"""

from __future__ import annotations

from advisor.catalog.families.experts import chosen_experts, no_balance
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


FAMILIES: dict[str, Family] = {"granitemoehybrid": granitemoehybrid}
