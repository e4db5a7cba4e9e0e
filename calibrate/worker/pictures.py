"""What a processor hands a vision-language model beside the tokens: pixels, grids, the kind of each token."""

from __future__ import annotations

from typing import Any

import torch

from advisor.specs import Picture


def picture_inputs(model: Any, input_ids: torch.Tensor, pictures: tuple[Picture, ...]) -> dict[str, Any]:
    """The inputs of a micro-batch whose rows begin with a token of text and hold these images, one after the other.

    `input_ids` gets the marks of the images. Source: transformers 5.23, models/qwen2_vl/processing_qwen2_vl.py.
    """
    config = model.config
    vision, batch = config.vision_config, input_ids.shape[0]
    kinds = torch.zeros_like(input_ids)
    begin = 1
    for one in pictures:
        input_ids[:, begin : begin + one.tokens] = config.image_token_id
        kinds[:, begin : begin + one.tokens] = 1
        begin += one.tokens + 1
    grid = torch.tensor([[1, one.high, one.wide] for _ in range(batch) for one in pictures])
    patches = int(grid.prod(-1).sum())
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {"pixel_values": torch.zeros(patches, width), "image_grid_thw": grid, "mm_token_type_ids": kinds}


TOWERS = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector", "embed_vision")
"""What the modules of towers and projectors are called."""


def tower_parameters(model: Any) -> set[int]:
    """The ids of the parameters of a vision tower and its projector; empty where the model has none."""
    return {id(parameter) for name, parameter in model.named_parameters() if in_tower(name)}


def in_tower(path: str) -> bool:
    """Whether a module or parameter of that path is a part of a tower or its projector."""
    return any(part in TOWERS for part in path.split("."))
