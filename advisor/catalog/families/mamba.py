"""Models that are state-space layers alone: Mamba 2. Sources: see the package."""

from __future__ import annotations

from advisor.catalog.families.sizes import MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, Family, Structure
from advisor.catalog.fields import Fields
from advisor.specs import Recurrence


def mamba2(f: Fields) -> Structure:
    """Mamba 2: one mixer a layer and nothing else."""
    hidden, layers = f.size("hidden_size", 4096), f.size("num_hidden_layers", 64, maximum=MAX_LAYERS)
    heads, width = f.size("num_heads", 128, maximum=MAX_HEADS), f.size("head_dim", 64)
    if heads * width != f.size("expand", 2) * hidden:
        raise f.bad("num_heads", f"is {heads}: of {width} features each they must make {f.size('expand', 2) * hidden}")
    if not f.flag("residual_in_fp32", True):
        raise f.unsupported("residual_in_fp32", "a residual stream in 16 bits")
    if f.text("hidden_act", "silu") != "silu":
        raise f.unsupported("hidden_act", "another activation than SiLU")
    return {
        "hidden_size": hidden,
        "intermediate_size": heads * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width,
        "vocab_size": f.size("vocab_size", 32_768),
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": f.flag("tie_word_embeddings", False),
        "position": "none",
        "default_attention": "eager",  # Mamba2PreTrainedModel has no _supports_sdpa
        "one_block": True,
        "mlp": "none",
        "mixers": ("mamba2",) * layers,
        "recurrence": Recurrence(
            conv_size=f.size("conv_kernel", 4),
            conv_bias=f.flag("use_conv_bias", True),
            key_heads=f.size("n_groups", 8),
            key_dim=f.size("state_size", 128),
            value_heads=heads,
            value_dim=width,
            chunk_size=f.size("chunk_size", 256),
            proj_bias=f.flag("use_bias", False),
        ),
    }


FAMILIES: dict[str, Family] = {"mamba2": mamba2}
