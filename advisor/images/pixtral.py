"""Pixtral's rule: a limit for the longest edge, sides rounded up to merged patches, a break after each row of them."""

from __future__ import annotations

from advisor.specs import Picture, VisionSpec


def pixtral(vision: VisionSpec, height: int, width: int) -> Picture:
    """Pixtral 12B, Mistral Small 3.1 and Ministral 3.

    Source: transformers 5.23, models/pixtral/image_processing_pixtral.py, get_resize_output_image_size, and
    processing_pixtral.py, _get_num_multimodal_tokens.
    """
    unit = vision.patch_size * vision.merge_size
    ratio = max(height, width) / vision.longest_edge
    if ratio > 1:
        height, width = int(height / ratio), int(width / ratio)
    high, wide = ((side - 1) // unit + 1 for side in (height, width))
    high, wide = max(high, 1), max(wide, 1)
    return Picture(tokens=(wide + 1) * high, high=high * vision.merge_size, wide=wide * vision.merge_size)
