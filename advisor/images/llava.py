"""LLaVA's rules: one square for any image; in LLaVA-NeXT that and the tiles of the resolution that fits best."""

from __future__ import annotations

from typing import NamedTuple

from advisor.specs import Picture, VisionSpec

PINPOINTS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""(rows, columns) of tiles. Source: transformers 5.23, models/llava_next/image_processing_llava_next.py."""


def llava(vision: VisionSpec, height: int, width: int) -> Picture:
    """LLaVA 1.5. Source: transformers 5.23, models/llava/processing_llava.py, _get_num_multimodal_tokens."""
    side = vision.image_size // vision.patch_size
    return Picture(tokens=side * side, high=side, wide=side)


def llava_next(vision: VisionSpec, height: int, width: int) -> Picture:
    """The whole image, and its tiles without the padding, each row of patches ended by a token.

    Source: transformers 5.23, models/llava_next/processing_llava_next.py, _get_number_of_features.
    """
    side = vision.image_size // vision.patch_size
    canvas = canvas_of(vision, height, width)
    tokens = side * side + canvas.high * (canvas.wide + 1)
    return Picture(tokens=tokens, high=side, wide=side, tiles=1 + canvas.tiles, height=height, width=width)


class Canvas(NamedTuple):
    """The tiles of an image side by side, and what of them the image fills, in patches."""

    rows: int  # of tiles
    columns: int
    high: int
    wide: int

    @property
    def tiles(self) -> int:
        """How many there are."""
        return self.rows * self.columns


def canvas_of(vision: VisionSpec, height: int, width: int) -> Canvas:
    """The tiles of an image of that many pixels.

    Source: transformers 5.23, models/llava_next/processing_llava_next.py, _get_unpadded_features.
    """
    side = vision.image_size // vision.patch_size
    rows, columns = _best(height, width, vision.image_size)
    high, wide = side * rows, side * columns
    if width / height > wide / high:
        high -= (high - int(round(height * (wide / width), 7))) // 2 * 2
    else:
        wide -= (wide - int(round(width * (high / height), 7))) // 2 * 2
    return Canvas(rows, columns, high, wide)


def _best(height: int, width: int, side: int) -> tuple[int, int]:
    """The tiles that show most of the image, and of those that show as much the fewest.

    Source: transformers 5.23, image_processing_utils.py, select_best_resolution.
    """
    best, most, least_wasted = PINPOINTS[0], 0, float("inf")
    for rows, columns in PINPOINTS:
        scale = min(columns * side / width, rows * side / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        wasted = rows * columns * side**2 - shown
        if shown > most or (shown == most and wasted < least_wasted):
            best, most, least_wasted = (rows, columns), shown, wasted
    return best
