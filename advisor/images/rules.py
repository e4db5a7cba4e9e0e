"""Which rule is whose, and the images of a row."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from math import sqrt

from advisor.errors import BadValue
from advisor.specs import Model, ModelSpec, Picture, VisionSpec, Workload

Rule = Callable[[VisionSpec, int, int], Picture]
"""(tower, height, width) -> the image after the processor. Raises BadValue for a size that the processor refuses."""


def rule_of(vision: VisionSpec) -> Rule:
    """The rule of a model, whose file is loaded when it is first asked for."""
    file, _, name = vision.code.rule.partition(".")
    rule: Rule = getattr(importlib.import_module(f"advisor.images.{file}"), name)
    return rule


def picture(vision: VisionSpec, height: int, width: int, max_pixels: int = 0) -> Picture:
    """An image of that many pixels after the processor; `max_pixels` is the user's limit, 0 for none.

    Processors that have such a limit of their own (Qwen's) take it in the place of the checkpoint's. For the others
    images are shrunk before. Raises BadValue for a size that the processor refuses.
    """
    if max_pixels and vision.most_pixels:
        least = min(vision.least_pixels, max_pixels)
        vision = vision.model_copy(update={"most_pixels": max_pixels, "least_pixels": least})
    elif max_pixels:
        height, width = shrunk(height, width, max_pixels)
    return rule_of(vision)(vision, height, width)


def shrunk(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    """(height, width) of an image resized to at most so many pixels, its aspect kept.

    Source: llamafactory 0.9.5, data/mm_plugin.py, _preprocess_image.
    """
    if height * width <= max_pixels:
        return height, width
    factor = sqrt(max_pixels / (width * height))
    return max(1, int(height * factor)), max(1, int(width * factor))


@lru_cache(maxsize=64)
def pictures(vision: VisionSpec, images: int, height: int, width: int, max_pixels: int) -> tuple[Picture, ...]:
    """The images of a row, all of one size."""
    return (picture(vision, height, width, max_pixels),) * images


def with_pictures(model: Model, workload: Workload) -> Model:
    """The model with the images of the workload's rows. Raises BadValue where it reads none."""
    vision = model.vision if isinstance(model, ModelSpec) else None
    if not workload.images or not isinstance(model, ModelSpec):
        if workload.images:
            raise BadValue("--images", workload.images, f"must be 0: {model.name} was traced on text")
        return model
    if vision is None:
        raise BadValue(
            "--images", workload.images, f"must be 0: {model.name} reads text alone, or its tower is unknown"
        )
    row = pictures(vision, workload.images, workload.image_height, workload.image_width, workload.max_pixels)
    return model if vision.row == row else model.model_copy(update={"vision": vision.model_copy(update={"row": row})})
