"""What a processor hands a vision-language model beside the tokens: pixels, grids, the kind of each token."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from advisor.specs import Picture

COUNTED = (torch.bool, torch.int32, torch.int64)
GRIDS = (
    "get_vision_attention_seqlens",
    "get_vision_interpolation_indices_and_weights",
    "get_vision_position_ids",
    "get_vision_window_index",
)
"""Functions of transformers 5.23, vision_utils.py, that read the sizes of images."""


def picture_inputs(model: Any, input_ids: torch.Tensor, pictures: tuple[Picture, ...]) -> dict[str, Any]:
    """The inputs of a micro-batch whose rows begin with a token of text and hold these images, one after the other.

    `input_ids` gets the marks of the images. What says how large they are has values, on fake tensors, too. Sources:
    transformers 5.23, models/*/processing_*.py and image_processing_*.py of each model.
    """
    config, batch = model.config, input_ids.shape[0]
    patches = _processor(config).patches(config)
    with unset_fake_temporarily():
        kinds, begin = torch.zeros_like(input_ids), 1
        for one in pictures:
            count = one.patches // patches if patches else one.tokens
            input_ids[:, begin : begin + count] = config.image_token_id
            kinds[:, begin : begin + count] = 1
            begin += one.tokens + 1
    return _processor(config).hands_on(config, batch, pictures, kinds)


def _grids(config: Any, batch: int, pictures: tuple[Picture, ...], kinds: torch.Tensor) -> dict[str, Any]:
    """Qwen's: patches side by side, the grid of each image, the kind of each token."""
    vision = config.vision_config
    with unset_fake_temporarily():
        grid = torch.tensor([[1, one.high, one.wide] for _ in range(batch) for one in pictures])
    patches = batch * sum(one.patches for one in pictures)
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {"pixel_values": torch.zeros(patches, width), "image_grid_thw": grid, "mm_token_type_ids": kinds}


def _tiles(config: Any, batch: int, pictures: tuple[Picture, ...], kinds: torch.Tensor) -> dict[str, Any]:
    """Square tiles, of all images together."""
    tiles = batch * sum(one.tiles for one in pictures)
    return {"pixel_values": torch.zeros(tiles, 3, *_side(config))}


def _tiles_and_kinds(config: Any, batch: int, pictures: tuple[Picture, ...], kinds: torch.Tensor) -> dict[str, Any]:
    """Square tiles, and the kind of each token."""
    return {**_tiles(config, batch, pictures, kinds), "token_type_ids": kinds}


def _whole(config: Any, batch: int, pictures: tuple[Picture, ...], kinds: torch.Tensor) -> dict[str, Any]:
    """Pixtral's: images as they are, filled up to the largest, and their sizes."""
    patch = config.vision_config.patch_size
    sizes = [[one.high * patch, one.wide * patch] for _ in range(batch) for one in pictures]
    with unset_fake_temporarily():
        shown = torch.tensor(sizes)
    return {"pixel_values": torch.zeros(len(sizes), 3, *map(max, zip(*sizes, strict=True))), "image_sizes": shown}


def _tiles_of_sizes(config: Any, batch: int, pictures: tuple[Picture, ...], kinds: torch.Tensor) -> dict[str, Any]:
    """LLaVA-NeXT's: the square tiles of each image, filled up to the most that one has, and the images' sizes."""
    images, most = batch * len(pictures), max(one.tiles for one in pictures)
    with unset_fake_temporarily():
        sizes = torch.tensor([[one.height, one.width] for _ in range(batch) for one in pictures])
    return {"pixel_values": torch.zeros(images, most, 3, *_side(config)), "image_sizes": sizes}


def _patches_and_places(config: Any, batch: int, pictures: tuple[Picture, ...], kinds: torch.Tensor) -> dict[str, Any]:
    """Gemma 4's: patches of each image and their places, filled up to the most that one has, the kind of each token."""
    vision, images = config.vision_config, batch * len(pictures)
    most = getattr(vision, "default_output_length", 280) * vision.pooling_kernel_size**2
    with unset_fake_temporarily():
        places = torch.full((images, most, 2), -1)
        for index, one in enumerate(pictures * batch):
            grid = torch.meshgrid(torch.arange(one.wide), torch.arange(one.high), indexing="xy")
            places[index, : one.patches] = torch.stack(grid, dim=-1).reshape(one.patches, 2)
    pixels = torch.zeros(images, most, 3 * vision.patch_size**2)
    return {"pixel_values": pixels, "image_position_ids": places, "mm_token_type_ids": kinds}


def _masked_tiles(config: Any, batch: int, pictures: tuple[Picture, ...], kinds: torch.Tensor) -> dict[str, Any]:
    """Llama 3.2's: the most tiles for each image, how they lie, which there are, and which of them each token sees."""
    images, tiles = (batch, len(pictures)), config.vision_config.max_num_tiles
    return {
        "pixel_values": torch.zeros(*images, tiles, 3, *_side(config)),
        "aspect_ratio_ids": torch.ones(images, dtype=torch.int64),
        "aspect_ratio_mask": torch.ones(*images, tiles, dtype=torch.int64),
        "cross_attention_mask": torch.ones(batch, kinds.shape[1], len(pictures), tiles, dtype=torch.int64),
    }


def _side(config: Any) -> tuple[int, int]:
    side = config.vision_config.image_size
    return tuple(side) if isinstance(side, (list, tuple)) else (side, side)


def _rows_of_tiles(config: Any, batch: int, pictures: tuple[Picture, ...], kinds: torch.Tensor) -> dict[str, Any]:
    """SmolVLM's: tiles row by row, none all zeros, as those that fill up a row are; a mask of their pixels."""
    shape = (batch, sum(one.tiles for one in pictures))
    side = _side(config)
    with unset_fake_temporarily():
        mask = torch.ones(*shape, *side, dtype=torch.int64)
    return {"pixel_values": torch.ones(*shape, 3, *side), "pixel_attention_mask": mask}


class Processor(NamedTuple):
    """What a model's processor hands on."""

    hands_on: Callable[..., dict[str, Any]]
    patches: Callable[[Any], int] = lambda config: 0
    """How many become a token that the tower makes, the others being marks, which are text; 0: all are its own."""
    sorts_tiles: bool = False  # the model counts how many pixels of a tile are zero, to find those that fill up a row


PROCESSORS: dict[str, Processor] = {
    **dict.fromkeys(
        ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), Processor(_grids)
    ),
    "gemma3": Processor(_tiles_and_kinds),
    "gemma4": Processor(_patches_and_places),
    "idefics3": Processor(_rows_of_tiles, lambda config: int(config.scale_factor) ** 2, sorts_tiles=True),
    "internvl": Processor(_tiles, lambda config: int(1 / config.downsample_ratio) ** 2),
    "llava": Processor(_tiles),
    "llava_next": Processor(_tiles_of_sizes),
    "mllama": Processor(_masked_tiles),
    "mistral3": Processor(_whole, lambda config: int(config.spatial_merge_size) ** 2),
    "llava_pixtral": Processor(_whole, lambda config: 1),
    "smolvlm": Processor(_rows_of_tiles, lambda config: int(config.scale_factor) ** 2, sorts_tiles=True),
}
"""By the model_type of the whole model, or with its tower's."""


def _processor(config: Any) -> Processor:
    """Raises KeyError for a model whose images are not known here."""
    both = f"{config.model_type}_{config.vision_config.model_type}"
    return PROCESSORS.get(both) or PROCESSORS[config.model_type]


TOWERS = (
    "visual",
    "vision_tower",
    "vision_model",
    "multi_modal_projector",
    "connector",
    "embed_vision",
    "image_newline",
)
"""What the modules and parameters of towers and projectors are called."""


TOWER_PATHS = rf"(.*\.)?({'|'.join(TOWERS)})(\..*)?"
"""A pattern of the paths of those modules."""


def freeze_tower(model: Any) -> None:
    """Leave a vision tower and its projector as they are."""
    frozen = tower_parameters(model)
    for parameter in model.parameters():
        if id(parameter) in frozen:
            parameter.requires_grad_(False)


def tower_parameters(model: Any) -> set[int]:
    """The ids of the parameters of a vision tower and its projector; empty where the model has none."""
    return {id(parameter) for name, parameter in model.named_parameters() if in_tower(name)}


def parameters_for_images(model: Any) -> set[int]:
    """The ids of the parameters that rows of text give no gradients: the tower's, and those of layers that read it.

    Source: transformers 5.23, models/mllama/modeling_mllama.py, MllamaTextModel.forward.
    """
    crossing = [one for one in model.modules() if type(one).__name__ == "MllamaCrossAttentionDecoderLayer"]
    return tower_parameters(model) | {id(parameter) for layer in crossing for parameter in layer.parameters()}


def wraps_linears(model: Any) -> bool:
    """Whether linear layers of a tower are inside modules of their names, which peft refuses to adapt by these."""
    return any(in_tower(path) and path.endswith("_proj.linear") for path, _ in model.named_modules())


def reads_early(model: Any) -> bool:
    """Whether tokens are made of what an earlier block of the tower returns, so that later ones get no gradients."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return getattr(base.config, "vision_feature_layer", -1) != -1


def in_tower(path: str) -> bool:
    """Whether a module or parameter of that path is a part of a tower or its projector."""
    return any(part in TOWERS for part in path.split("."))


@contextlib.contextmanager
def real_grids(model: Any, pictures: tuple[Picture, ...]) -> Iterator[None]:
    """Let a model on fake tensors read the sizes of its images and where their tokens are, which have values."""
    if not pictures:
        yield
        return
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    module = sys.modules[type(base).__module__]
    with contextlib.ExitStack() as stack:
        for name in GRIDS:
            if hasattr(module, name):
                stack.enter_context(patch.object(module, name, _with_values(getattr(module, name))))
        if hasattr(base.model, "get_rope_index"):
            stack.enter_context(patch.object(base.model, "get_rope_index", _with_values(base.model.get_rope_index)))
        one_hot = torch.nn.functional.one_hot  # fills a tensor that a fake mode makes a fake one
        stack.enter_context(patch.object(torch.nn.functional, "one_hot", _with_values(one_hot)))
        stack.enter_context(_Values(_processor(base.config).sorts_tiles))
        yield


def _with_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` run for real, unless it is given fake tensors; of what it returns, whole numbers keep their values."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(one, FakeTensor) for one in tree_leaves((args, kwargs))):
            return function(*args, **kwargs)
        with unset_fake_temporarily():
            found = function(*args, **kwargs)
        return tree_map_only(torch.Tensor, lambda x: x if x.dtype in COUNTED else x.new_empty(x.shape), found)

    return run


def _have_values(*values: Any) -> bool:
    """Whether all tensors among these, of which there is one, are real: they count something, or are made of counts."""
    tensors = [one for one in tree_leaves(values) if isinstance(one, torch.Tensor)]
    return bool(tensors) and not any(isinstance(one, FakeTensor) for one in tensors)


class _Values(TorchDispatchMode):
    """Runs for real what is made of real whole numbers alone, and gives shapes to what a mask with values picks.

    `sorts_tiles`: the model leaves out tiles that are all zeros, which none is.
    """

    def __init__(self, sorts_tiles: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sorts_tiles = sorts_tiles

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _have_values(args, kwargs):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if self.sorts_tiles and func is torch.ops.aten.ne.Scalar and args[0].ndim == 1:
            with unset_fake_temporarily():
                return torch.ones(args[0].shape, dtype=torch.bool)
        if func is torch.ops.aten.masked_scatter_backward.default:
            return args[0].new_empty(args[2])
        if str(func).startswith(("aten.index.", "aten.index_put", "aten._index_put", "aten._unsafe_index_put")):
            args = (args[0], _places(args[1]), *args[2:])
        return func(*args, **kwargs)


def _places(indices: Any) -> list[Any]:
    """Indices with whole numbers in place of masks."""
    found: list[Any] = []
    for one in indices:
        if isinstance(one, torch.Tensor) and one.dtype == torch.bool and not isinstance(one, FakeTensor):
            with unset_fake_temporarily():
                found += one.nonzero(as_tuple=True)
        else:
            found.append(one)
    return found
