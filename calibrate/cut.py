"""Cuts a model to a few layers and words, so that its full-width layers train on a small device. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from advisor.architectures import architecture_of
from advisor.catalog.config_json import QUANTIZATION_KEYS, decoder_config, model_from_config
from advisor.errors import AdvisorError
from advisor.specs import ModelSpec

LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
INDEX_LISTS = {"mlp_only_layers", "moe_layers"}
"""Keys that name layers by their index."""


class Whole(NamedTuple):
    """A model as requested; `spec` is None when the formula does not know it, `code` a folder with its code.

    `attention` is what transformers picks by default.
    """

    name: str
    config: Mapping[str, Any]
    spec: ModelSpec | None
    code: str = ""
    attention: Literal["sdpa", "eager"] = "sdpa"


class Cut(NamedTuple):
    """A model as it is trained; `text` says what the cut keeps, '' for the whole model."""

    name: str
    config: Mapping[str, Any]
    spec: ModelSpec | None
    text: str
    code: str = ""


def uncut(model: Whole) -> Cut:
    """The whole model."""
    return Cut(model.name, model.config, model.spec, "", model.code)


def cut(model: Whole, layers: int, words: int) -> Cut:
    """The model's first `layers` layers and `words` words of its vocabulary, each capped at the size of the model.

    A model that the formula does not know is not cut, because the layout of its config is unknown.
    """
    spec = model.spec
    if spec is None:
        return uncut(model)
    layers, words = min(layers, spec.num_hidden_layers), min(words, spec.vocab_size)
    config = cut_config(model.config, spec, layers, words)
    said = [
        f"{left:,} of {whole:,} {name}"
        for left, whole, name in ((layers, spec.num_hidden_layers, "layers"), (words, spec.vocab_size, "words"))
        if left < whole
    ]
    if not said:
        return uncut(model)
    said += ["without its vision tower"] if spec.vision is not None else []
    return Cut(model.name, config, model_from_config(config, model.name, model.name), ", ".join(said), model.code)


def cut_config(config: Mapping[str, Any], spec: ModelSpec, layers: int, words: int) -> dict[str, Any]:
    """The config.json of the decoder with this many layers and words; per-layer lists are cut too."""
    found = _unstored(decoder_config(config, towers=False))
    whole = spec.num_hidden_layers
    if layers < whole:
        for name, value in found.items():
            if isinstance(value, list) and len(value) == whole:
                found[name] = value[:layers]
        for name in INDEX_LISTS & found.keys():
            found[name] = [index for index in found[name] or () if index < layers]
        found[next((key for key in LAYER_KEYS if key in found), LAYER_KEYS[0])] = layers
        if alone := architecture_of(spec.architecture).without_images:
            found = {key: value for key, value in found.items() if key != "cross_attention_layers"}
            found["model_type"] = alone
        if spec.kv_shared_layers:
            found["num_kv_shared_layers"] = max(0, spec.kv_shared_layers - (whole - layers))
    if words < spec.vocab_size:
        found["vocab_size"] = words
        found |= {"vocab_size_per_layer_input": min(words, spec.layer_input_vocab)} if spec.layer_input_vocab else {}
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):  # they may be beyond the cut
            there = found.get(name)
            if not (isinstance(there, int) and there < words) and not (spec.bidirectional and there is None):
                found[name] = None
    return found


def _unstored(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without how a checkpoint stores its weights: they are made here, and stored as the recipe says."""
    return {key: value for key, value in config.items() if key not in QUANTIZATION_KEYS}


def spec_of(name: str, config: Mapping[str, Any]) -> ModelSpec | None:
    """The formula's spec of a config; None when it does not know the architecture."""
    try:
        return model_from_config(_unstored(config), name, name)
    except AdvisorError:
        return None
