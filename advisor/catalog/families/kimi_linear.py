"""Kimi Linear: a delta rule whose decay is of each feature, and latent attention in some layers.

Sources: see the package.
"""

from __future__ import annotations

from advisor.catalog.families.delta_rule import CHUNK
from advisor.catalog.families.experts import ExpertDefaults, deepseek_mixture
from advisor.catalog.families.hybrid import mixers
from advisor.catalog.families.latent import latent
from advisor.catalog.families.sigmoid_experts import mlp_layers
from advisor.catalog.families.sizes import MAX_HEAD_DIM, MAX_HEADS, Defaults, Family, Structure, expert_layers, sizes
from advisor.catalog.fields import Fields
from advisor.specs import Mixer, Recurrence

_SPELLINGS = {
    "max_position_embeddings": "model_max_length",
    "norm_topk_prob": "moe_renormalize",
    "n_shared_experts": "num_shared_experts",
    "num_experts_per_tok": "num_experts_per_token",
}
"""transformers' names, and those of the published files."""


def kimi_linear(f: Fields) -> Structure:
    """Kimi Linear: three layers with the delta rule, then one with attention; experts in all but the first."""
    for name, other in _SPELLINGS.items():
        f = f.replaced(other, name)
    s = sizes(f, Defaults(163_840, 2304, 9216, 27, 32, 1_048_576, kv_heads=32, head_dim=64))
    layers = s["num_hidden_layers"]
    s = latent(f if f.has("q_lora_rank") else _direct(f), s)
    s |= {"router_normalized": f.flag("norm_topk_prob", True), "position": "none"}
    rule = f.part("linear_attn_config")
    default: list[Mixer] = ["attention" if i and i % 4 == 0 else "kda" for i in range(layers)]
    if rule.has("full_attn_layers") and rule.has("kda_layers"):
        default = _listed(rule, layers)
    kinds: dict[str, Mixer] = {"full_attention": "attention", "linear_attention": "kda"}
    heads = rule.size("num_heads", f.size("linear_num_heads", 32, maximum=MAX_HEADS), maximum=MAX_HEADS)
    width = rule.size("head_dim", f.size("linear_head_dim", 128, maximum=MAX_HEAD_DIM), maximum=MAX_HEAD_DIM)
    s |= {
        "mixers": mixers(f, layers, kinds, default),
        "recurrence": Recurrence(
            conv_size=rule.size("short_conv_kernel_size", f.size("linear_conv_kernel_dim", 4), maximum=1_000),
            key_heads=heads,
            value_heads=heads,
            key_dim=width,
            value_dim=width,
            chunk_size=CHUNK,
        ),
    }
    first = f.size("first_k_dense_replace", 1, minimum=0)
    sparse = mlp_layers(f, layers, first)
    if not any(sparse):
        return s
    return {**deepseek_mixture(f, s, 0, ExpertDefaults(256, 8, 1024, 1)), **expert_layers(sparse)}


def _direct(f: Fields) -> Fields:
    """Queries without a latent, as the config class has it by default."""
    return f._replace(config={**f.config, "q_lora_rank": None})


def _listed(rule: Fields, layers: int) -> list[Mixer]:
    """The mixers by lists of layers, counted from 1."""
    ruled, attending = rule.items("kda_layers"), rule.items("full_attn_layers")
    every = range(1, layers + 1)
    if any(ruled.count(index) + attending.count(index) != 1 for index in every):
        raise rule.bad("kda_layers", f"and full_attn_layers must name each of the {layers} layers once, counted from 1")
    return ["attention" if index in attending else "kda" for index in every]


FAMILIES: dict[str, Family] = {"kimi_linear": kimi_linear}
