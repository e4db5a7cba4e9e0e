"""The tower of a vision-language model: its `vision_config` -> VisionSpec, one function a family.

Defaults of missing keys follow configuration_*.py of transformers 5.23. The limits of processors are not in a
config.json: those of the published checkpoints stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isqrt

from advisor.catalog.fields import Fields
from advisor.errors import BadConfig, InputError
from advisor.images.llava import PINPOINTS
from advisor.specs import VisionSpec

Sizes = dict[str, object]
MOST_SIDE, MOST_BLOCKS, MOST_PATCHES = 10_000, 1_000, 1_000_000

QWEN2_PIXELS = (56 * 56, 12_845_056)
"""min_pixels and max_pixels of Qwen2-VL's and Qwen2.5-VL's preprocessor_config.json."""
QWEN3_PIXELS = (65_536, 16_777_216)
"""size.shortest_edge and size.longest_edge of Qwen3-VL's and Qwen3.5's preprocessor_config.json."""


def _qwen(v: Fields, pixels: tuple[int, int], patch: int, act: str) -> Sizes:
    return {
        "num_hidden_layers": v.size("depth", 32, maximum=MOST_BLOCKS),
        "num_attention_heads": v.size("num_heads", 16, maximum=MOST_SIDE),
        "patch_size": v.size("patch_size", patch, maximum=MOST_SIDE),
        "temporal_patch_size": v.size("temporal_patch_size", 2, maximum=100),
        "channels": v.size(v.key_of("in_channels", "in_chans"), 3, maximum=100),
        "merge_size": v.size("spatial_merge_size", 2, maximum=100),
        "activation": v.text("hidden_act", act),
        "least_pixels": pixels[0],
        "most_pixels": pixels[1],
    }


def _qwen2(v: Fields, whole: Fields, width: int) -> Sizes:
    hidden = v.size("embed_dim", 1280)
    return {
        **_qwen(v, QWEN2_PIXELS, 14, "quick_gelu"),
        "hidden_size": hidden,
        "intermediate_size": hidden * v.size("mlp_ratio", 4, maximum=100),
        "output_size": v.size("hidden_size", 3584),
    }


def _indexes(v: Fields, key: str, default: tuple[int, ...], depth: object) -> tuple[int, ...]:
    """A list of blocks by their number."""
    found = v.items(key) if v.has(key) else list(default)
    if not all(type(one) is int and 0 <= one < MOST_BLOCKS for one in found):
        raise v.bad(key, "must list the numbers of blocks")
    return tuple(sorted({one for one in found if one < int(str(depth))}))


def _qwen2_5(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _qwen(v, QWEN2_PIXELS, 14, "silu")
    return {
        **sizes,
        "hidden_size": v.size("hidden_size", 3584),
        "intermediate_size": v.size("intermediate_size", 3420),
        "output_size": v.size("out_hidden_size", 3584),
        "window_size": v.size("window_size", 112, maximum=MOST_SIDE),
        "full_layers": _indexes(v, "fullatt_block_indexes", (7, 15, 23, 31), sizes["num_hidden_layers"]),
    }


def _qwen3(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _qwen(Fields({"depth": 27, **v.config}, v.origin, v.prefix), QWEN3_PIXELS, 16, "gelu_pytorch_tanh")
    return {
        **sizes,
        "hidden_size": v.size("hidden_size", 1152),
        "intermediate_size": v.size("intermediate_size", 4304),
        "output_size": v.size("out_hidden_size", 3584),
        "position_rows": v.size("num_position_embeddings", 2304),
    }


def _qwen3_vl(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _qwen3(v, whole, width)
    stacked = _indexes(v, "deepstack_visual_indexes", (8, 16, 24), sizes["num_hidden_layers"])
    return {**sizes, "deepstack_layers": stacked}


def _common(v: Fields, hidden: int, inner: int, layers: int, heads: int, patch: int, image: int) -> Sizes:
    """The sizes of towers that name them as decoders do, with these defaults."""
    return {
        "hidden_size": v.size("hidden_size", hidden),
        "intermediate_size": v.size("intermediate_size", inner),
        "num_hidden_layers": v.size("num_hidden_layers", layers, maximum=MOST_BLOCKS),
        "num_attention_heads": v.size("num_attention_heads", heads, maximum=MOST_SIDE),
        "patch_size": _side(v, "patch_size", patch),
        "channels": v.size("num_channels", 3, maximum=100),
        "image_size": _side(v, "image_size", image),
    }


def _side(v: Fields, key: str, default: int) -> int:
    """The side of a square: one number, or a list of it twice."""
    if isinstance(v.config.get(key), list):
        v = v.one_for_all(key)
    return v.size(key, default, maximum=MOST_SIDE)


def _squares(sizes: Sizes) -> int:
    """Patches of a square image, each a whole one."""
    return (int(str(sizes["image_size"])) // int(str(sizes["patch_size"]))) ** 2


def _merging(v: Fields, patches: int, tokens: int) -> int:
    """The side of the square of patches that becomes one token."""
    side = isqrt(patches // max(tokens, 1))
    if side < 1 or side**2 * tokens != patches:
        raise v.bad("image_size", f"gives {patches} patches, which do not make {tokens} tokens")
    return side


def _gemma3(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _common(v, 768, 3072, 12, 12, 16, 224)
    tokens, patches = whole.size("mm_tokens_per_image", 256, maximum=MOST_PATCHES), _squares(sizes)
    if v.flag("vision_use_head", True):
        raise v.unsupported("vision_use_head", "a head on the vision tower")
    act = v.text("hidden_act", "gelu_pytorch_tanh")
    merge = _merging(v, patches, tokens)
    return {**sizes, "position_rows": patches, "image_tokens": tokens, "merge_size": merge, "activation": act,
            "output_size": width}  # fmt: skip


def _gemma4(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _common(v, 768, 3072, 16, 12, 16, 16)
    heads, hidden = int(str(sizes["num_attention_heads"])), int(str(sizes["hidden_size"]))
    if v.size("num_key_value_heads", 12, maximum=MOST_SIDE) != heads or hidden % heads or (
        v.size("head_dim", 64, maximum=MOST_SIDE) != hidden // heads
    ):  # fmt: skip
        raise v.unsupported("num_key_value_heads", "heads in the vision tower that share keys or are wider")
    return {
        **{**sizes, "image_size": 0},
        "position_rows": v.size("position_embedding_size", 10_240),
        "image_tokens": v.size("default_output_length", 280, maximum=MOST_PATCHES),
        "merge_size": v.size("pooling_kernel_size", 3, maximum=100),
        "activation": v.text("hidden_activation", "gelu_pytorch_tanh"),
        "clips": v.flag("use_clipped_linears", False),
        "standardizes": v.flag("standardize", False),
        "sees_ahead": whole.part("text_config").text("use_bidirectional_attention", "") == "vision",
        "output_size": width,
    }


def _llava(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _common(v, 768, 3072, 12, 12, 32, 224)
    if whole.text("vision_feature_select_strategy", "default") != "default":
        raise whole.unsupported("vision_feature_select_strategy", "the class token among an image's tokens")
    layer, blocks = whole.config.get("vision_feature_layer", -2), int(str(sizes["num_hidden_layers"]))
    if type(layer) is not int or not -blocks - 1 <= layer <= blocks:
        raise whole.unsupported("vision_feature_layer", "image features of several blocks, or of none")
    act = v.text("hidden_act", "quick_gelu")
    return {**sizes, "position_rows": _squares(sizes) + 1, "activation": act, "output_size": width,
            "unread_blocks": blocks - layer if layer >= 0 else -1 - layer}  # fmt: skip


def _llava_next(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _llava(v, whole, width)
    side = int(str(sizes["image_size"]))
    points = [[rows * side, columns * side] for rows, columns in PINPOINTS]
    if whole.has("image_grid_pinpoints") and whole.items("image_grid_pinpoints") != points:
        raise whole.unsupported("image_grid_pinpoints", "images of other sizes than two, three or four tiles")
    return sizes


def _llava_pixtral(v: Fields, whole: Fields, width: int) -> Sizes:
    """Pixtral 12B: LLaVA's projector on all patches of Pixtral's tower."""
    if whole.config.get("vision_feature_layer", -2) != -1 or (
        whole.text("vision_feature_select_strategy", "default") != "full"
    ):
        raise whole.unsupported("vision_feature_layer", "features of other blocks than the last, or of some patches")
    return {**_pixtral(v, width), "merge_size": 1}


def _pixtral(v: Fields, width: int) -> Sizes:
    sizes = _common(v, 1024, 4096, 24, 16, 16, 1024)
    if v.size("head_dim", 64, maximum=MOST_SIDE) * int(str(sizes["num_attention_heads"])) != sizes["hidden_size"]:
        raise v.unsupported("head_dim", "heads that are not as wide as the tower")
    act = v.text("hidden_act", "gelu")
    return {**sizes, "longest_edge": sizes["image_size"], "activation": act, "output_size": width}


def _mistral3(v: Fields, whole: Fields, width: int) -> Sizes:
    if whole.flag("multimodal_projector_bias", False):
        raise whole.unsupported("multimodal_projector_bias", "a projector with biases")
    return {**_pixtral(v, width), "merge_size": whole.size("spatial_merge_size", 2, maximum=100)}


def _internvl(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _common(v, 1024, 4096, 24, 16, 14, 448)
    for key in ("use_qk_norm", "use_mask_token"):
        if v.flag(key, False):
            raise v.unsupported(key, "a norm of queries and keys, or a mask token, in the vision tower")
    if v.text("norm_type", "layer_norm") != "layer_norm":
        raise v.unsupported("norm_type", "another norm in the vision tower")
    patches = _squares(sizes)
    tokens = whole.size("image_seq_length", 256, maximum=MOST_PATCHES)
    return {**sizes, "position_rows": patches + 1, "image_tokens": tokens, "merge_size": _merging(v, patches, tokens),
            "most_tiles": 12, "activation": v.text("hidden_act", "gelu"), "qkv_bias": v.flag("attention_bias", False),
            "output_size": width}  # fmt: skip


def _mllama(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _common(v, 1280, 5120, 32, 16, 14, 448)
    heads = v.size("attention_heads", 16, maximum=MOST_SIDE)
    blocks, last = int(str(sizes["num_hidden_layers"])), v.size("num_global_layers", 8, maximum=MOST_BLOCKS)
    joined = _indexes(v, "intermediate_layers_indices", (3, 7, 15, 23, 30), blocks)
    if v.size("vision_output_dim", 7680) != (1 + len(joined)) * int(str(sizes["hidden_size"])):
        raise v.bad("vision_output_dim", f"is not as wide as {1 + len(joined)} blocks' outputs")
    shapes = len(v.items("supported_aspect_ratios")) if v.has("supported_aspect_ratios") else 8
    return {**sizes, "num_attention_heads": heads, "num_hidden_layers": blocks + last, "global_blocks": last,
            "joined_blocks": joined, "tile_shapes": shapes, "most_tiles": v.size("max_num_tiles", 4, maximum=100),
            "position_rows": _squares(sizes) + 1, "activation": v.text("hidden_act", "gelu"),
            "output_size": width}  # fmt: skip


def _smolvlm(v: Fields, whole: Fields, width: int) -> Sizes:
    sizes = _common(v, 1152, 3072, 12, 16, 32, 224)
    merge = whole.size("scale_factor", 2, maximum=100)
    patches, image = _squares(sizes), sizes["image_size"]
    return {**sizes, "position_rows": patches, "merge_size": merge, "image_tokens": patches // merge**2,
            "longest_edge": 4 * int(str(image)), "activation": v.text("hidden_act", "gelu_pytorch_tanh"),
            "output_size": width}  # fmt: skip


_TOWERS: dict[str, Callable[[Fields, Fields, int], Sizes]] = {
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "idefics3": _smolvlm,
    "internvl": _internvl,
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_pixtral": _llava_pixtral,
    "mistral3": _mistral3,
    "mllama": _mllama,
    "qwen2_vl": _qwen2,
    "qwen2_5_vl": _qwen2_5,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl,
    "qwen3_5": _qwen3,
    "qwen3_5_moe": _qwen3,
    "smolvlm": _smolvlm,
}
"""By the model_type of the whole model, or with its tower's: (vision_config, the whole, decoder's width) -> sizes."""


def knows_tower(model_type: str) -> bool:
    """Whether the tower of such a model is known."""
    return model_type in _TOWERS


def vision_of(config: Mapping[str, object], model_type: str, origin: str, hidden_size: int) -> VisionSpec | None:
    """The tower that the `vision_config` of a model describes; None where its code is not known here.

    `hidden_size`: the width of the decoder, which the projector has to meet. Raises BadConfig.
    """
    if not knows_tower(model_type):
        return None
    whole = Fields(config, origin)
    if whole.has("audio_config"):
        return None
    fields = whole.part("vision_config")
    if model_type == "llava" and fields.config.get("model_type") == "pixtral":
        model_type = "llava_pixtral"
    try:
        found = VisionSpec.model_validate({"model_type": model_type, **_TOWERS[model_type](fields, whole, hidden_size)})
    except InputError as error:
        text = str(error)
        raise BadConfig(text if text.startswith(origin) else f"{origin}: vision_config: {text}") from None
    if found.hidden_size % found.num_attention_heads:
        raise fields.bad(
            "hidden_size", f"is {found.hidden_size}, which {found.num_attention_heads} heads do not divide"
        )
    if found.output_size != hidden_size:
        problem = f"gives tokens of {found.output_size}, but the decoder takes {hidden_size}"
        raise whole.bad("vision_config", problem)
    return found
