"""Gemma 3n: four streams, an embedding for each layer, late layers with the keys and values of earlier ones."""

from __future__ import annotations

from typing import Any

from advisor.catalog.families.gemma4 import layer_inputs, shared_keys
from advisor.catalog.families.sizes import (
    Defaults,
    Family,
    Structure,
    activation,
    rope,
    sizes,
    sliding_layers,
)
from advisor.catalog.fields import Fields
from advisor.specs import Streams

SPARSE_LAYERS = 10
"""How many first layers cut the MLP's gate where the config does not say, in a model of more."""


def gemma3n(f: Fields) -> Structure:
    """The text model of Gemma 3n."""
    d = Defaults(262_400, 2048, 16_384, 35, 8, 32_768, kv_heads=2, head_dim=256, tied=True)
    f = f.one_for_all("intermediate_size")
    s = sizes(f, d, must_divide=True)
    layers: int = s["num_hidden_layers"]
    slides = sliding_layers(f, layers, lambda i: bool((i + 1) % 5))
    if not f.size("hidden_size_per_layer_input", 256, minimum=0):
        raise f.bad("hidden_size_per_layer_input", "is 0: Gemma 3n's code needs an embedding for each layer")
    for key in ("altup_coef_clip", "altup_correct_scale"):
        if f.is_null(key) or f.config.get(key) is False:
            raise f.unsupported(key, "AltUp without it")
    bias = f.flag("attention_bias", False)
    streams = Streams(
        count=f.size("altup_num_inputs", 4, minimum=2, maximum=64),
        laurel_rank=f.size("laurel_rank", 64),
        sparse_layers=_sparse_layers(f, layers),
    )
    found = {
        **s,
        **layer_inputs(f, 256),
        **shared_keys(f, slides, 15),
        "streams": streams,
        "activation": activation(f, "hidden_activation", "gelu_pytorch_tanh"),
        "norm": "rms_power",
        "norm_placement": "sandwich",
        "qk_norm": "head",
        "embedding_multiplier": True,
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "final_softcap": not f.is_null("final_logit_softcapping"),
        "sliding_window": f.size("sliding_window", 512),
        "sliding_layers": tuple(slides),
    }
    return rope(f, found)


def _sparse_layers(f: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers cut the MLP's gate: those whose sparsity is above 0."""
    if not f.has("activation_sparsity_pattern"):
        count = SPARSE_LAYERS if layers > SPARSE_LAYERS else 0
        return (True,) * count + (False,) * (layers - count)
    found: list[Any] = f.items("activation_sparsity_pattern")
    if len(found) != layers:
        raise f.bad("activation_sparsity_pattern", f"has {len(found)} entries for {layers} layers")
    if any(isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one < 1 for one in found):
        raise f.bad("activation_sparsity_pattern", "must hold numbers from 0 to below 1")
    return tuple(one > 0 for one in found)


FAMILIES: dict[str, Family] = {
    "gemma3n_text": gemma3n,
}
