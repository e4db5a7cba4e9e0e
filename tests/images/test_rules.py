"""The rules for images against the processors of transformers, on random sizes."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from advisor.errors import BadValue
from advisor.images import picture, pictures, shrunk, with_pictures
from advisor.images.llava import canvas_of
from advisor.specs import VisionSpec, Workload
from tests.decoders.tiny import spec
from tests.images.processors import functions

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "output_size": 64,
    "patch_size": 14,
}
QWEN: dict[str, Any] = {"merge_size": 2, "temporal_patch_size": 2, "least_pixels": 3136, "most_pixels": 12_845_056}


def tower(architecture: str, **sizes: Any) -> VisionSpec:
    return VisionSpec(model_type=architecture, **{**BASE, **sizes})


def sizes(count: int = 400, most: int = 4000) -> list[tuple[int, int]]:
    """(height, width) pairs, the same in every run, small and odd ones among them."""
    rng = random.Random(1)
    return [(rng.randint(8, most), rng.randint(8, most)) for _ in range(count)]


@pytest.mark.parametrize("most", [12_845_056, 1_003_520, 589_824])
@pytest.mark.parametrize(("architecture", "patch", "least"), [("qwen2_5_vl", 14, 3136), ("qwen3_vl", 16, 65_536)])
def test_qwen(architecture: str, patch: int, least: int, most: int) -> None:
    resized = functions("models/qwen2_vl/image_processing_qwen2_vl.py", "smart_resize")["smart_resize"]
    vision = tower(architecture, **{**QWEN, "patch_size": patch, "least_pixels": least, "most_pixels": most})
    for height, width in sizes():
        found = picture(vision, height, width)
        high, wide = resized(height, width, 2 * patch, least, most)
        assert (found.high * patch, found.wide * patch, found.tokens) == (high, wide, high * wide // (2 * patch) ** 2)


def test_qwen_refuses_a_stripe() -> None:
    with pytest.raises(BadValue, match=r"--image-size is '10x2001', but must have sides within 200 to 1"):
        picture(tower("qwen2_vl", **QWEN), 2001, 10)


def gemma4_resize() -> Any:
    name = "get_aspect_ratio_preserving_size"
    return functions("models/gemma4/image_processing_gemma4.py", name)[name]


@pytest.mark.parametrize("budget", [70, 280, 1120])
def test_gemma4(budget: int) -> None:
    resized = gemma4_resize()
    vision = tower("gemma4", patch_size=16, merge_size=3, image_tokens=budget)
    for height, width in sizes():
        found = picture(vision, height, width)
        high, wide = resized(height, width, 16, 9 * budget, 3)
        assert (found.high * 16, found.wide * 16, found.tokens) == (high, wide, high * wide // 48**2)


def test_gemma4_of_a_thread() -> None:
    resized = gemma4_resize()
    vision = tower("gemma4", patch_size=16, merge_size=3, image_tokens=280)
    for height, width in ((2, 2000), (2000, 2), (1, 99_999)):
        found = picture(vision, height, width)
        assert (found.high * 16, found.wide * 16) == resized(height, width, 16, 2520, 3)


def test_internvl() -> None:
    names = ("get_all_supported_aspect_ratios", "get_optimal_tiled_canvas")
    canvas = functions("models/got_ocr2/image_processing_got_ocr2.py", *names)[names[1]]
    vision = tower("internvl", merge_size=2, image_size=448, image_tokens=256, most_tiles=12)
    for height, width in sizes():
        columns, rows = canvas((height, width), (448, 448), 1, 12)
        tiles = 1 + (columns * rows if columns * rows > 1 else 0)
        found = picture(vision, height, width)
        assert (found.tiles, found.tokens, found.patches) == (tiles, 2 + 256 * tiles, 1024 * tiles)


@pytest.mark.parametrize(("edge", "merge"), [(1024, 1), (1540, 2)])
def test_pixtral(edge: int, merge: int) -> None:
    names = ("_num_image_tokens", "get_resize_output_image_size")
    file = "models/pixtral/image_processing_pixtral.py"
    resized = functions(file, *names, get_image_size=lambda image, form: image)[names[1]]
    unit = 14 * merge
    vision = tower("mistral3", merge_size=merge, longest_edge=edge)
    for height, width in sizes():
        high, wide = resized((height, width), (edge, edge), (unit, unit))
        found = picture(vision, height, width)
        assert (found.high * 14, found.wide * 14) == (high, wide)
        assert found.tokens == (wide // unit + 1) * (high // unit)


def test_llava_next() -> None:
    best = functions("image_processing_utils.py", "select_best_resolution")
    names = ("_get_number_of_features", "_get_unpadded_features")
    found = functions("models/llava_next/processing_llava_next.py", *names, **best)
    points = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=points), patch_size=14, num_additional_image_tokens=1
    )
    processor._get_unpadded_features = found[names[1]].__get__(processor)
    count = found[names[0]]
    vision = tower("llava_next", image_size=336)
    tiles = functions("image_processing_utils.py", "select_best_resolution")["select_best_resolution"]
    for height, width in sizes():
        found, canvas = picture(vision, height, width), canvas_of(vision, height, width)
        assert found.tokens == count(processor, height, width, 336, 336) - 1
        assert (canvas.rows * 336, canvas.columns * 336) == tiles((height, width), points)
        assert found.tokens == 576 + canvas.high * (canvas.wide + 1)


@pytest.mark.parametrize(("edge", "tile", "each"), [(1536, 384, 81), (2048, 512, 64)])
def test_smolvlm(edge: int, tile: int, each: int) -> None:
    names = (
        "_resize_output_size_rescale_to_max_len",
        "_resize_output_size_scale_below_upper_bound",
        "get_number_of_image_patches",
    )
    count = functions("models/smolvlm/image_processing_smolvlm.py", *names)[names[2]]
    processor = SimpleNamespace(
        do_image_splitting=True, max_image_size={"longest_edge": tile}, size={"longest_edge": edge}
    )
    vision = tower("smolvlm", patch_size=tile // 27 if tile == 384 else 16, image_size=tile)
    vision = vision.model_copy(update={"longest_edge": edge, "image_tokens": each})
    for height, width in sizes():
        tiles, rows, columns = count(processor, height, width, {})
        found = picture(vision, height, width)
        assert (found.tiles, found.tokens) == (max(tiles, 1), each + 3 + ((each + 2) * columns + 1) * rows)


def test_squares() -> None:
    assert picture(tower("gemma3", image_size=896, image_tokens=256), 100, 3000).tokens == 256
    found = picture(tower("llava", image_size=336), 100, 3000)
    assert (found.tokens, found.patches) == (576, 576)
    found = picture(tower("mllama", image_size=560, most_tiles=4), 100, 3000)
    assert (found.tokens, found.patches) == (1, 4 * 1600)


def test_a_limit_of_the_user() -> None:
    assert picture(tower("qwen2_5_vl", **QWEN), 1024, 1024).tokens == 1369
    assert picture(tower("qwen2_5_vl", **QWEN), 1024, 1024, 28 * 28 * 256).tokens <= 256
    assert picture(tower("qwen2_5_vl", **QWEN), 1024, 1024, 1).tokens == 1  # below the least: that is no limit then
    small, large = (
        picture(tower("internvl", image_size=448, image_tokens=256, most_tiles=12), side, side, limit)
        for side, limit in ((448, 0), (2000, 448 * 448))
    )
    assert small == large
    assert shrunk(1080, 1920, 768 * 768) == (576, 1024)
    assert shrunk(10, 10, 100) == (10, 10)


def test_the_images_of_a_row() -> None:
    vision = tower("qwen2_5_vl", **QWEN)
    row = pictures(vision, 2, 1024, 1024, 0)
    seen = vision.model_copy(update={"row": row})
    assert (seen.row_tokens, seen.row_patches, seen.row_features) == (2738, 10_952, 2738)


def test_images_for_a_text_model() -> None:
    with pytest.raises(BadValue, match=r"--images is 1, but must be 0: llama reads text alone"):
        with_pictures(spec("llama"), Workload(images=1))
    assert with_pictures(spec("llama"), Workload()) == spec("llama")
