"""A Hugging Face config.json -> ModelSpec, from whatever a stranger's file holds.

Reading is guarded (regular file, at most 4 MiB, UTF-8, one JSON object) and every field is checked when
it is used, so that a hostile file ends in one line that names the file and the field.
`families` says what each family's code builds from these fields.

`quantization_config` says how the weights are stored (advisor.catalog.quantization_config, loaded where there is one).
Ignored on purpose: `dtype` (`Recipe.base_dtype`), and every key that changes neither a shape nor which operations run
(RoPE base and scaling, norm epsilons, token ids).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from advisor.architectures import architecture_of
from advisor.architectures.classifiers import classifier_of
from advisor.architectures.towers import TOWERS
from advisor.catalog.families import find_family
from advisor.catalog.families.experts import balance
from advisor.catalog.fields import Fields
from advisor.errors import BadConfig, BadValue, InputError, SourceUnavailable, UnsupportedArchitecture, shown
from advisor.files.guarded import decoded, read_bytes
from advisor.specs import PART_OF, ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

QUANTIZATION_KEYS = ("quantization_config", "compression_config")
MAX_FILE_BYTES = 4 * 2**20
_HINT = "give a config.json or a folder that holds one"
_MAX_WRAPPERS = 3
_TEXT_PARTS = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "glm4v": "glm4v_text",
    "glm46v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "mistral3": "mistral",
    "mllama": "mllama_text_model",
    "paddleocr_vl": "paddleocr_vl_text",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
}
"""The model_type of a multimodal model's text part, for configs that do not state it."""
_THINKERS = {"qwen2_5_omni": "qwen2_5_omni_thinker", "qwen3_omni_moe": "qwen3_omni_moe_thinker"}
"""Models that speak, too, and the model_type of the part under their `thinker_config` that reads and writes text.

Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py, Qwen2_5OmniForConditionalGeneration: it has no
forward of its own, and is trained through its thinker.
"""
_FLAT = frozenset({"qwen2_vl", "qwen2_5_vl"})
"""Models whose early config files keep the text part's sizes outside any `text_config`."""
_QWEN2_VL: dict[str, object] = {
    "vocab_size": 152_064,
    "hidden_size": 8192,
    "intermediate_size": 29_568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_window_layers": 80,
}
_LIKE: dict[str, tuple[str, dict[str, object]]] = {
    "glm4v_text": ("glm4", {"max_position_embeddings": 32_768}),
    "glm4v_moe_text": (
        "glm4_moe",
        {"vocab_size": 151_424, "max_position_embeddings": 65_536, "attention_bias": True},
    ),
    "paddleocr_vl_text": (
        "llama",
        {
            "vocab_size": 103_424,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 18,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 131_072,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2_5_omni_text": (
        "qwen2",
        {
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
    ),
    "qwen3_omni_moe_text": (
        "qwen3_moe",
        {
            "vocab_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "norm_topk_prob": True,
        },
    ),
    "qwen2_vl_text": ("qwen2", _QWEN2_VL),
    "qwen2_5_vl_text": ("qwen2", _QWEN2_VL),
    "qwen3_vl_text": ("qwen3", {"max_position_embeddings": 128_000}),
    "qwen3_vl_moe_text": (
        "qwen3_moe",
        {
            "intermediate_size": 5632,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "max_position_embeddings": 128_000,
            "moe_intermediate_size": 1408,
            "num_experts": 60,
            "num_experts_per_tok": 4,
        },
    ),
}
"""Text parts that have no causal model class: the family that their layers belong to, and their own defaults.

Ignored: their rotary tables cover three axes of positions, which are equal for text. Scaling or interleaving them
changes no size.
"""

_FIXED: dict[str, dict[str, object]] = {
    # modeling_qwen3_vl_moe.py, Qwen3VLMoeTextTopKRouter: always normalized; configuration: sliding_window = None
    "qwen3_vl_moe_text": {"norm_topk_prob": True, "use_sliding_window": False},
    "glm4v_text": {"attention_bias": True},  # modeling_glm4v.py, Glm4vTextAttention: nn.Linear(..., bias=True)
    "glm4v_moe_text": {"use_qk_norm": False},  # modeling_glm4v_moe.py, Glm4vMoeTextAttention: no norms
}
"""What the code of such a text part does whatever its config says, as its family's config says it."""
TEXT_PART = "text_part"
"""The key under which the decoder's config keeps the model_type of such a text part."""
EXPERTS_ALONE = frozenset({"qwen3_vl_moe_text"})
"""Text parts whose experts peft never adapts, unlike their family's: peft 0.21 looks a wrapper's model_type up in
transformers' conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN, which lacks theirs."""


def read_config(path: Path, origin: str = "") -> Mapping[str, object]:
    """The JSON object in the file at `path`; errors name `origin`, or else the path.

    Raises BadConfig, with one line that names the file.
    """
    origin = origin or shown(path)
    try:
        return parse_config(read_bytes(path, origin, _HINT, MAX_FILE_BYTES), origin)
    except SourceUnavailable as error:  # a wrong path is the caller's value
        raise BadConfig(str(error)) from None


def parse_config(data: bytes, origin: str) -> Mapping[str, object]:
    """The JSON object in `data`; if a key occurs twice, the last one counts. Raises BadConfig."""
    try:
        found = json.loads(decoded(data, origin, _HINT))
    except json.JSONDecodeError as error:
        raise BadConfig(f"{origin}: not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except RecursionError:
        raise BadConfig(f"{origin}: not a config.json: JSON nested too deeply") from None
    except ValueError:
        raise BadConfig(f"{origin}: not a config.json: a number with too many digits") from None
    if not isinstance(found, dict):
        raise BadConfig(f"{origin}: expected a JSON object, found {type(found).__name__}")
    return found


def model_from_config(config: Mapping[str, object], name: str, origin: str) -> ModelSpec:
    """The decoder that transformers builds from `config`, called `name`; `origin` is named in errors.

    For a multimodal wrapper whose text part is of a known family, it is the whole model where its `vision_config` is
    there and of a known kind, else the text tower with a head, as its name says.
    A missing key takes the default of transformers 5.23's config class for that model_type.
    Raises BadConfig for an invalid field, UnsupportedArchitecture for a model that the formula does not know.
    """
    fields, model_type, wrapper = _decoder_fields(config, origin)
    family = find_family(model_type)
    if family is None:
        raise UnsupportedArchitecture(_unknown(fields, model_type, origin))
    if fields.has("per_layer_config") and not architecture_of(model_type).reads_per_layer_config:
        raise fields.unsupported("per_layer_config", "layers that differ from each other")
    try:
        structure = family(fields)
        structure |= balance(fields, model_type, structure, bool(wrapper))
    except BadValue as error:  # of a part that the family itself makes, which does not know the file
        raise BadConfig(f"{origin}: {error}") from None
    if fields.config.get(TEXT_PART) in EXPERTS_ALONE:
        structure["experts"] = "fused_alone"
    # with rotary positions: files of earlier models name no head where there is one
    if not wrapper and fields.names_no_head() and structure.get("position") == "rope":
        structure |= {"task": "embeddings", "tie_word_embeddings": True, "lm_head_bias": False}
    try:
        found = ModelSpec.model_validate({"name": name, "architecture": model_type, **structure})
    except InputError as error:
        raise BadConfig(f"{origin}: {error}") from None
    if fields.names_classifier():
        classifier_of(model_type)
        found = found.classifying(fields.labels())
    if wrapper:
        found = _with_tower(found, config, wrapper, origin)
    if not any(one.get(key) is not None for one in (config, fields.config) for key in QUANTIZATION_KEYS):
        return found
    from advisor.catalog.quantization_config import checkpoint_of

    checkpoint = checkpoint_of({**fields.config, **config}, found, origin)
    return found if checkpoint is None else found.model_copy(update={"checkpoint": checkpoint})


def _with_tower(m: ModelSpec, config: Mapping[str, object], wrapper: str, origin: str) -> ModelSpec:
    """The model with the tower that its config describes, or called a part of that one."""
    row = TOWERS.get(wrapper)
    if row is not None and row.experts_alone and m.experts == "fused":
        m = m.model_copy(update={"experts": "fused_alone"})
    if config.get("vision_config") is not None:
        from advisor.catalog.vision import vision_of

        vision = vision_of(config, wrapper, origin, m.hidden_size)
        if vision is not None:
            return m.model_copy(update={"vision": vision})
    return m.model_copy(update={"name": f"{m.name}{PART_OF}{shown(wrapper, 40)})"})


def decoder_config(config: Mapping[str, object], origin: str = "", towers: bool = True) -> Mapping[str, object]:
    """The config of the decoder that `model_from_config` describes: `config` itself, or that of its text tower.

    If the text part belongs to no known family, or the tower beside it is known, it is `config` itself; without
    `towers` never for the latter. Raises BadConfig.
    """
    fields, model_type, wrapper = _decoder_fields(config, origin or "the config")
    if not (wrapper and find_family(model_type)):
        return config
    if towers and config.get("vision_config") is not None:
        from advisor.catalog.vision import knows_tower

        if knows_tower(wrapper):
            return config
    return {**fields.without("architectures").config, "model_type": model_type}


def _decoder_fields(config: Mapping[str, object], origin: str) -> tuple[Fields, str, str]:
    """The fields of the decoder, its model_type, and that of the multimodal wrapper around it, or ''."""
    fields = Fields(config, origin)
    model_type, wrapper = _model_type(fields), ""
    if model_type in _THINKERS:
        wrapper, fields, model_type = model_type, fields.part("thinker_config"), _THINKERS[model_type]
    for _ in range(_MAX_WRAPPERS):
        default = _TEXT_PARTS.get(model_type, "")
        if find_family(model_type) or not (fields.has("text_config") or default):
            break
        wrapper = wrapper or model_type
        flat = model_type in _FLAT and not fields.has("text_config")
        fields = Fields({**fields.config, "model_type": default}, origin) if flat else fields.text_tower()
        model_type = fields.text("model_type", default) or _model_type(fields)
        if model_type in _LIKE:
            part, (model_type, defaults) = model_type, _LIKE[model_type]
            own = {key: value for key, value in fields.config.items() if key not in ("rope_scaling", "rope_parameters")}
            fixed = {TEXT_PART: part, **_FIXED.get(part, {})}
            if part == "glm4v_text":  # modeling_glm4v.py, Glm4vTextAttention: hidden_size // num_heads
                fixed["head_dim"] = fields.size("hidden_size", 4096) // fields.size("num_attention_heads", 32)
            fields = Fields({**defaults, **own, **fixed}, origin, fields.prefix)
    return fields, model_type, wrapper


def _model_type(fields: Fields) -> str:
    """The field that says which code reads the rest."""
    if not fields.has("model_type"):
        raise fields.bad("model_type", "is missing: it names the architecture, for example 'llama'")
    return fields.text("model_type", "")


def _unknown(fields: Fields, model_type: str, origin: str) -> str:
    """The message for an architecture that is in no family."""
    experts = "moe" in model_type or any("expert" in key and value for key, value in fields.config.items())
    kind = "a mixture of experts, which the formula does not know" if experts else "not one that the formula knows"
    return (
        f"{origin}: architecture {model_type[:60]!r} is {kind};"
        f" `calibrate --dry-run --model {origin}` measures it without a GPU"
    )
