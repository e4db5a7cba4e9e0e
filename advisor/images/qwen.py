"""Qwen's rule: sides to multiples of a merged patch, the number of pixels between two limits, the aspect kept."""

from __future__ import annotations

from math import ceil, floor, sqrt

from advisor.errors import BadValue
from advisor.specs import Picture, VisionSpec

MOST_ASPECT = 200


def qwen(vision: VisionSpec, height: int, width: int) -> Picture:
    """Qwen2-VL to Qwen3.5. Source: transformers 5.23, models/qwen2_vl/image_processing_qwen2_vl.py, smart_resize."""
    if max(height, width) > MOST_ASPECT * min(height, width):
        raise BadValue("--image-size", f"{width}x{height}", f"must have sides within {MOST_ASPECT} to 1")
    unit = vision.patch_size * vision.merge_size
    high, wide = (round(side / unit) * unit for side in (height, width))
    if high * wide > vision.most_pixels:
        shrink = sqrt(height * width / vision.most_pixels)
        high, wide = (max(unit, floor(side / shrink / unit) * unit) for side in (height, width))
    elif high * wide < vision.least_pixels:
        grow = sqrt(vision.least_pixels / (height * width))
        high, wide = (ceil(side * grow / unit) * unit for side in (height, width))
    high, wide = high // vision.patch_size, wide // vision.patch_size
    return Picture(tokens=high * wide // vision.merge_size**2, high=high, wide=wide)
