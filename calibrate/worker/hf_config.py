"""From a config.json to transformers' config object and the class that builds the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.architectures import ARCHITECTURES
from advisor.catalog.config_json import EXPERTS_ALONE, TEXT_PART, decoder_config
from advisor.catalog.fields import Fields
from advisor.errors import BadConfig, UnsupportedArchitecture

DROPPED_KEYS = (
    "model_type",
    "quantization_config",
    "auto_map",
    "dtype",
    "torch_dtype",
    "architectures",
    "_name_or_path",
    "transformers_version",
    "use_cache",
    TEXT_PART,
)


def resolve(config: Mapping[str, Any], layers: int | None = None) -> tuple[Any, Any]:
    """(transformers' config, the Auto class that builds its model) of a config.json.

    Raises BadConfig or UnsupportedArchitecture.
    """
    from transformers import AutoConfig

    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise BadConfig("the config has no model_type: use the config.json of a language model")
    config = decoder_config(config)  # of a model whose tower the formula does not know, its text part
    model_type = str(config["model_type"])
    try:
        attributes = type(AutoConfig.for_model(model_type)).attribute_map
    except ValueError:
        raise UnsupportedArchitecture(_unknown(model_type, config)) from None
    options = {key: value for key, value in config.items() if key not in DROPPED_KEYS}
    _fix_rotary_frequencies(options, model_type)
    inner = options.get("text_config")
    if layers is not None and isinstance(inner, Mapping):
        text: dict[str, Any] = dict(inner)
        _cut_layers(text, "num_hidden_layers", layers)
        options["text_config"] = text
    elif layers is not None:
        _cut_layers(options, attributes.get("num_hidden_layers", "num_hidden_layers"), layers)
    try:
        hf_config = AutoConfig.for_model(model_type, **options)
    except Exception as error:  # whatever its validators raise, the config is at fault
        raise BadConfig(f"transformers rejects this {model_type} config: {str(error)[:300]}") from None
    if config.get(TEXT_PART) in EXPERTS_ALONE:
        hf_config.model_type = config[TEXT_PART]  # what peft goes by
    if hf_config.is_encoder_decoder and getattr(hf_config, "decoder_start_token_id", None) is None:
        hf_config.decoder_start_token_id = 0  # shifts the labels; changes no tensor's size
    return hf_config, auto_class(hf_config, config.get("architectures"))


def _unknown(model_type: str, config: Mapping[str, Any]) -> str:
    """Why a model_type cannot be built, and what to do about it."""
    if "auto_map" in config:
        return (
            f"model_type {model_type[:60]!r} comes with its own Python code, which runs only on request:"
            " if you trust that code, pass the model's local folder and --trust-remote-code"
        )
    return (
        f"transformers does not know model_type {model_type[:60]!r}: install a version that does, or use a"
        " model that brings its own code"
    )


def auto_class(hf_config: Any, architectures: object = None) -> Any:
    """The Auto class that a training script for this config would use.

    An encoder-decoder is trained as one. Where the config names no head, an encoder or a decoder with rotary positions
    is trained for embeddings; other encoders for classification if the config says so, else on masked tokens;
    everything else as a causal language model, which transformers files among models of images for some (Mistral 4).
    """
    import transformers as hf

    if getattr(hf_config, "vision_config", None) is not None and type(hf_config) in _mapping(hf):
        return hf.AutoModelForImageTextToText
    named = architectures[0] if isinstance(architectures, list) and architectures else ""
    causal, masked = hf.AutoModelForCausalLM, hf.AutoModelForMaskedLM
    both, classifier = hf.AutoModelForSeq2SeqLM, hf.AutoModelForSequenceClassification

    def knows(kind: Any) -> bool:
        return type(hf_config) in kind._model_mapping

    encoder = knows(masked) and not getattr(hf_config, "is_decoder", False)
    if Fields({"architectures": architectures}, "").names_no_head() and (
        encoder or hasattr(hf_config, "rope_parameters")
    ):
        return hf.AutoModel
    if str(named).endswith("ForSequenceClassification") and knows(classifier):
        return classifier
    if getattr(hf_config, "is_encoder_decoder", False):
        if knows(both):
            return both
        raise UnsupportedArchitecture(
            f"models of type {hf_config.model_type!r} encode something other than text and cannot be traced"
        )
    filed = str(getattr(hf.AutoModelForImageTextToText._model_mapping.get(type(hf_config), None), "__name__", ""))
    images = hf.AutoModelForImageTextToText, filed.endswith("ForCausalLM")
    for kind, fits in ((masked, encoder), (causal, True), images, (both, True), (classifier, True)):
        if fits and knows(kind):
            return kind
    raise UnsupportedArchitecture(
        f"transformers has no model of type {hf_config.model_type!r} that can be traced: no causal"
        " or masked language model, no encoder-decoder and no classifier"
    )


def _mapping(hf: Any) -> Any:
    """The models that read images and text."""
    return hf.AutoModelForImageTextToText._model_mapping


def _cut_layers(options: dict[str, Any], key: str, layers: int) -> None:
    """Keep only the first `layers` layers in a config."""
    options[key] = layers
    for name in ("layer_types", "no_rope_layers"):
        if isinstance(options.get(name), list):
            options[name] = options[name][:layers]
    if isinstance(own := options.get("per_layer_config"), Mapping):
        options["per_layer_config"] = {key: value for key, value in own.items() if int(key) < layers}


def _fix_rotary_frequencies(options: dict[str, Any], model_type: str) -> None:
    """Turn off frequencies that depend on the values of position ids, which fake tensors do not have.

    Which ones: transformers' type 'dynamic' and, in Phi's mixture, any type but the default. No tensor's size changes.
    """
    known = ARCHITECTURES.get(model_type)  # calibrate also traces unknown ones
    reads_positions = known is not None and known.rope_type_reads_positions
    for key in ("rope_scaling", "rope_parameters"):
        found = options.get(key)
        if not isinstance(found, Mapping):
            continue
        kind = found.get("rope_type", found.get("type"))
        if kind == "dynamic" or (reads_positions and kind != "default"):
            kept = {name: found[name] for name in ("rope_theta", "partial_rotary_factor") if name in found}
            options[key] = {"rope_type": "default", **kept}
