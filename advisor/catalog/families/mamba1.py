"""Models with Mamba's state-space layers, alone (Mamba, Falcon Mamba) or between layers with attention (Jamba).

Sources: see the package.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

from advisor.catalog.families.experts import chosen_experts
from advisor.catalog.families.sizes import MAX_LAYERS, MAX_POSITIONS, Defaults, Family, Structure, expert_layers, sizes
from advisor.catalog.fields import Fields
from advisor.specs import Mixer, Recurrence

KERNEL_CHUNK = 2048
"""Tokens of which mamba_ssm's kernel keeps the last state.

Source: mamba_ssm 2.3.2.post1, csrc/selective_scan/selective_scan.cpp, selective_scan_fwd: n_chunks.
"""


def jamba(f: Fields) -> Structure:
    """Jamba: Mamba, or attention without positions in every n-th layer, then an MLP or experts."""
    s = sizes(f, Defaults(65_536, 4096, 14_336, 32, 32, 262_144, kv_heads=8))
    if f.flag("use_mambapy", False):
        raise f.unsupported("use_mambapy", "the scan of mamba.py")
    layers, hidden = s["num_hidden_layers"], s["hidden_size"]
    attends = _every(f, "attn_layer_period", "attn_layer_offset", 8, 4, layers)
    found: tuple[Mixer, ...] = tuple("attention" if one else "mamba1" for one in attends)
    names = {"state": "mamba_d_state", "taps": "mamba_d_conv", "expand": "mamba_expand", "rank": "mamba_dt_rank"}
    s |= {
        "position": "none",
        "mixers": () if all(attends) else found,
        "recurrence": None if all(attends) else _recurrence(f, hidden, names, "mamba_proj_bias", "mamba_conv_bias"),
    }
    if f.size("num_experts", 16) < 2:
        return s
    sparse = _every(f, "expert_layer_period", "expert_layer_offset", 2, 1, layers)
    if not any(sparse):
        return s
    chosen = chosen_experts(f, ("num_experts", "num_local_experts"), 16, ("num_experts_per_tok",), 2)
    return {**s, "mlp": "experts", "expert_size": s["intermediate_size"], **chosen, **expert_layers(sparse)}


def _every(f: Fields, period: str, offset: str, every: int, first: int, layers: int) -> list[bool]:
    """For each layer, whether its index leaves `offset` over when divided by `period`."""
    n, rest = f.size(period, every), f.size(offset, first, minimum=0)
    if rest >= n:
        raise f.bad(offset, f"is {rest}: it must be less than {period}, {n}")
    return [i % n == rest for i in range(layers)]


def _recurrence(f: Fields, hidden: int, names: dict[str, str], bias: str, conv_bias: str) -> Recurrence:
    """The sizes of Mamba's layers, as these keys name them."""
    inner = f.size(names["expand"], 2) * hidden
    auto = f.config.get(names["rank"], "auto") == "auto"
    return Recurrence(
        conv_size=f.size(names["taps"], 4),
        conv_bias=f.flag(conv_bias, True),
        key_heads=1,
        key_dim=f.size(names["state"], 16),
        value_heads=inner,
        value_dim=1,
        chunk_size=KERNEL_CHUNK,
        proj_bias=f.flag(bias, False),
        gate_norm=False,
        step_rank=ceil(hidden / 16) if auto else f.size(names["rank"], 256),
        step_norms="learned",
    )


def mamba(f: Fields) -> Structure:
    """Mamba: one mixer a layer and nothing else."""
    return _alone(f, "none")


def falcon_mamba(f: Fields) -> Structure:
    """Falcon Mamba: the same with norms of steps, keys and queries, which have no weights."""
    return _alone(f, "unit")


def _alone(f: Fields, norms: Literal["none", "unit"]) -> Structure:
    """`intermediate_size`, where a file has it, stands above `expand`: it is set after the class computed its own."""
    hidden, layers = f.size("hidden_size", 768), f.size("num_hidden_layers", 32, maximum=MAX_LAYERS)
    if not f.flag("residual_in_fp32", True):
        raise f.unsupported("residual_in_fp32", "a residual stream in 16 bits")
    if f.text("hidden_act", "silu") != "silu":
        raise f.unsupported("hidden_act", "another activation than SiLU")
    if f.flag("use_mambapy", False) or f.flag("use_falcon_mambapy", False):
        raise f.unsupported("use_mambapy", "the scan of mamba.py")
    names = {"state": "state_size", "taps": "conv_kernel", "expand": "expand", "rank": "time_step_rank"}
    found = _recurrence(f, hidden, names, "use_bias", "use_conv_bias")
    inner = f.size("intermediate_size", found.value_size)
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": hidden,
        "vocab_size": f.size("vocab_size", 50_280),
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": f.flag("tie_word_embeddings", True),
        "position": "none",
        "default_attention": "eager",  # MambaPreTrainedModel has no _supports_sdpa
        "one_block": True,
        "mlp": "none",
        "mixers": ("mamba1",) * layers,
        "recurrence": found.model_copy(update={"value_heads": inner, "step_norms": norms}),
    }


FAMILIES: dict[str, Family] = {"falcon_mamba": falcon_mamba, "jamba": jamba, "mamba": mamba}
