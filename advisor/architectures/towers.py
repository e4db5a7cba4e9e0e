"""How each vision-language model reads images: one row per model_type of the whole model.

Source: transformers 5.23, models/*/modeling_*.py, cited as in the rows of decoders.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from advisor.errors import UnsupportedArchitecture

Beside = Literal["grids", "", "sizes", "mask", "kinds", "places", "tiles"]
"""What a processor hands the model beside pixels: the grid of each image and the kind of each token (Qwen), nothing,
the size of each image, a mask of all pixels, the kind of each token, that and the place of each patch, or how tiles
lie, which there are, and which of them each token attends to."""
Returned = Literal["", "tokens", "tower"]
"""What the model's outputs hold beside the logits: nothing, the tokens of images, or what the tower made of them."""


TowerNorm = Literal["layer", "rms", "rms_power"]
"""Of a tower, as decoders.norms.NORMS names them."""
SeeBothWays = Literal["", "all", "sliding"]
"""In which layers tokens of an image attend to each other both ways, so that every row has a mask of its own."""


class TowerRow(NamedTuple):
    """Whose parameters, whose rule for images and whose code a model's tower has."""

    parts: str  # a key of parameters.towers.PARTS
    rule: str  # file of advisor.images and the function in it
    code: str  # a key of decoders.towers.TOWERS
    norm: TowerNorm = "layer"
    # Its patches are its input embedding (`_input_embed_layer`), whose output checkpointing makes require a gradient.
    patches_are_leaf: bool = False
    places_by_axes: bool = False  # tokens have positions on three axes: each row has rotary tables of its own
    squares: bool = False  # it is given square tiles
    masks: bool = False  # attention is given a mask, of numbers
    fills_up: bool = False  # images are filled up to the most patches that one may have, and these are masked
    # Its linear layers are inside modules that have their names (Gemma4ClippableLinear), which peft refuses to adapt.
    wraps_linears: bool = False
    beside: Beside = "grids"
    returns: Returned = ""
    see_both_ways: SeeBothWays = ""  # or as a config says
    experts_alone: bool = (
        False  # peft does not know the fused experts of the whole model, as it does of the decoder's own
    )
    text_places_beside: bool = False  # of rows of text, layers are handed position ids as well


TOWERS: dict[str, TowerRow] = {
    # modeling_qwen2_vl.py, Qwen2VisionTransformerPretrainedModel._input_embed_layer = "patch_embed"
    "qwen2_vl": TowerRow("qwen2", "qwen.qwen", "qwen", patches_are_leaf=True, places_by_axes=True),
    # modeling_qwen2_5_vl.py, Qwen2_5_VLVisionBlock: self.norm1 = Qwen2_5_VLRMSNorm(config.hidden_size, eps=1e-6)
    # modeling_qwen2_5_vl.py, Qwen2_5_VisionTransformerPretrainedModel: _input_embed_layer = "patch_embed"
    "qwen2_5_vl": TowerRow("qwen2_5", "qwen.qwen", "qwen", norm="rms", patches_are_leaf=True, places_by_axes=True),
    # modeling_qwen3_vl.py, Qwen3VLTextModel.forward: position_ids.view(1, 1, -1).expand(4, ...)
    "qwen3_vl": TowerRow("qwen3", "qwen.qwen", "qwen", places_by_axes=True, text_places_beside=True),
    # peft 0.21, utils/transformers_weight_conversion.py, which has no pattern for it
    "qwen3_vl_moe": TowerRow(
        "qwen3", "qwen.qwen", "qwen", places_by_axes=True, experts_alone=True, text_places_beside=True
    ),
    # modeling_siglip.py, SiglipVisionModel: _input_embed_layer = "patch_embedding"
    # modeling_gemma3.py, create_masks_for_vision_model
    "gemma3": TowerRow(
        "gemma3",
        "gemma.gemma3",
        "gemma3",
        patches_are_leaf=True,
        beside="kinds",
        returns="tokens",
        see_both_ways="all",
        squares=True,
    ),
    # modeling_gemma4.py, Gemma4RMSNorm; Gemma4VisionModel, which names no input embedding
    "gemma4": TowerRow(
        "gemma4",
        "gemma.gemma4",
        "gemma4",
        norm="rms_power",
        fills_up=True,
        wraps_linears=True,
        beside="places",
        returns="tokens",
    ),
    # modeling_idefics3.py, Idefics3VisionTransformer.get_input_embeddings: self.embeddings
    "idefics3": TowerRow(
        "smolvlm", "tiles.smolvlm", "smolvlm", patches_are_leaf=True, squares=True, beside="mask", returns="tower"
    ),
    # modeling_internvl.py, InternVLVisionModel.get_input_embeddings: self.embeddings.patch_embeddings
    "internvl": TowerRow(
        "internvl", "tiles.internvl", "internvl", patches_are_leaf=True, squares=True, beside="", returns="tokens"
    ),
    # modeling_clip.py, CLIPVisionModel: _input_embed_layer = "patch_embedding"
    "llava": TowerRow(
        "llava", "llava.llava", "llava", patches_are_leaf=True, squares=True, beside="", returns="tokens"
    ),
    "llava_next": TowerRow(
        "llava_next",
        "llava.llava_next",
        "llava_next",
        patches_are_leaf=True,
        squares=True,
        beside="sizes",
        returns="tokens",
    ),
    # modeling_mllama.py, MllamaVisionModel.get_input_embeddings: self.patch_embedding
    "mllama": TowerRow(
        "mllama", "tiles.mllama", "mllama", patches_are_leaf=True, squares=True, masks=True, beside="tiles"
    ),
    # modeling_pixtral.py, PixtralVisionModel.get_input_embeddings: self.patch_conv
    "mistral3": TowerRow(
        "mistral3",
        "pixtral.pixtral",
        "mistral3",
        norm="rms",
        patches_are_leaf=True,
        masks=True,
        beside="sizes",
        returns="tokens",
    ),
    # modeling_llava.py with a tower of modeling_pixtral.py: Pixtral 12B
    "llava_pixtral": TowerRow(
        "pixtral",
        "pixtral.pixtral",
        "pixtral",
        norm="rms",
        patches_are_leaf=True,
        masks=True,
        beside="sizes",
        returns="tokens",
    ),
    "qwen3_5": TowerRow("qwen3", "qwen.qwen", "qwen", places_by_axes=True, text_places_beside=True),
    "qwen3_5_moe": TowerRow("qwen3", "qwen.qwen", "qwen", places_by_axes=True, text_places_beside=True),
    # modeling_smolvlm.py, SmolVLMVisionTransformer.get_input_embeddings: self.embeddings
    "smolvlm": TowerRow(
        "smolvlm", "tiles.smolvlm", "smolvlm", patches_are_leaf=True, squares=True, beside="mask", returns="tower"
    ),
}


def tower_row(model_type: str) -> TowerRow:
    """The row of a model. Raises UnsupportedArchitecture for one whose tower is not known."""
    found = TOWERS.get(model_type)
    if found is None:
        raise UnsupportedArchitecture(f"the vision tower of {model_type[:60]!r} is not one that the formula knows")
    return found
