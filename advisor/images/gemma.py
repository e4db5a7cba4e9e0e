"""Gemma's rules: Gemma 3 squeezes every image into one square, Gemma 4 keeps the aspect within a budget of patches."""

from __future__ import annotations

from math import floor, sqrt

from advisor.errors import BadValue
from advisor.specs import Picture, VisionSpec


def gemma3(vision: VisionSpec, height: int, width: int) -> Picture:
    """As many tokens for any image; pan and scan, which is off by default, is left out.

    Source: transformers 5.23, models/gemma3/processing_gemma3.py, _get_num_multimodal_tokens.
    """
    side = vision.image_size // vision.patch_size
    return Picture(tokens=vision.image_tokens, high=side, wide=side)


def gemma4(vision: VisionSpec, height: int, width: int) -> Picture:
    """Sides rounded down to pooled patches, of which there are at most `image_tokens`.

    Source: transformers 5.23, models/gemma4/image_processing_gemma4.py, get_aspect_ratio_preserving_size.
    """
    pool, most = vision.merge_size, vision.image_tokens
    unit = vision.patch_size * pool
    factor = sqrt(most * unit**2 / (height * width))
    high, wide = (floor(factor * side / unit) for side in (height, width))
    if not high and not wide:
        raise BadValue("--image-size", f"{width}x{height}", "must leave a patch of the image")
    if not high:
        high, wide = 1, min(width // height, most)
    elif not wide:
        high, wide = min(height // width, most), 1
    return Picture(tokens=high * wide, high=high * pool, wide=wide * pool)
