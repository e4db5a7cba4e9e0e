"""Rules that cut an image into square tiles: InternVL's by the aspect, SmolVLM's by the size, each with an overview."""

from __future__ import annotations

from math import ceil

from advisor.specs import Picture, VisionSpec


def internvl(vision: VisionSpec, height: int, width: int) -> Picture:
    """InternVL: 1 to 12 tiles whose arrangement has nearly the image's aspect, an overview beside several, two marks.

    Source: transformers 5.23, models/got_ocr2/image_processing_got_ocr2.py, get_optimal_tiled_canvas, and
    models/internvl/processing_internvl.py, _get_num_multimodal_tokens.
    """
    columns, rows = _nearest_aspect(height, width, vision.image_size, vision.most_tiles)
    tiles = 1 + (columns * rows if columns * rows > 1 else 0)
    side = vision.image_size // vision.patch_size
    return Picture(tokens=2 + vision.image_tokens * tiles, high=side, wide=side, tiles=tiles)


def _nearest_aspect(height: int, width: int, side: int, most: int) -> tuple[int, int]:
    """(columns, rows). Of equal aspects the larger one, unless it has more than twice the image's area."""
    sides = range(1, most + 1)
    grids = sorted(((c, r) for c in sides for r in sides if c * r <= most), key=lambda grid: grid[0] * grid[1])
    best, least = (1, 1), float("inf")
    for columns, rows in grids:
        difference = abs(width / height - columns / rows)
        large_enough = width * height > 0.5 * side * side * columns * rows
        if difference < least or (difference == least and large_enough):
            best, least = (columns, rows), difference
    return best


def mllama(vision: VisionSpec, height: int, width: int) -> Picture:
    """Llama 3.2 Vision: one mark; an image is as many tiles as one may have, of which those that it lacks are masked.

    Source: transformers 5.23, models/mllama/image_processing_mllama.py, pack_images, and processing_mllama.py,
    replace_image_token.
    """
    side = vision.image_size // vision.patch_size
    return Picture(tokens=1, high=side, wide=side, tiles=vision.most_tiles)


def smolvlm(vision: VisionSpec, height: int, width: int) -> Picture:
    """SmolVLM and Idefics 3: the image is enlarged to its longest edge, cut into tiles, and shown whole beside them.

    Marks: three around the overview; two for each tile, one for each row of them.
    Source: transformers 5.23, models/smolvlm/image_processing_smolvlm.py, get_number_of_image_patches, and
    processing_smolvlm.py, _get_num_multimodal_tokens. A tokenizer is taken to make one token of two line ends.

    Ignores: a second limit of 4,096 pixels, which no checkpoint's longest edge reaches.
    """
    side, each = vision.image_size, vision.image_tokens
    high, wide = _scaled(height, width, vision.longest_edge)
    rows, columns = ceil(high / side), ceil(wide / side)
    if rows * columns == 1:
        rows = columns = 0
    patches = side // vision.patch_size
    tokens = each + 3 + ((each + 2) * columns + 1) * rows
    return Picture(tokens=tokens, high=patches, wide=patches, tiles=1 + rows * columns)


def _scaled(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) with that longest side, the other rounded down and then up to an even number.

    Source: the same file, _resize_output_size_rescale_to_max_len.
    """
    aspect = width / height
    if width >= height:
        width, height = longest, int(longest / aspect)
        height += height % 2
    else:
        height, width = longest, int(longest * aspect)
        width += width % 2
    return max(height, 1), max(width, 1)
