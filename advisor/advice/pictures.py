"""The images of a question's rows: their size, the limits that apply, and the tokens that they take of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from advisor.answer import Reason, TowerUse
from advisor.costs.static import tower_bytes
from advisor.errors import BadValue, InputError
from advisor.images import shrunk, with_pictures
from advisor.knobs import Question
from advisor.parameters.towers import tower_parameter_count
from advisor.rules.wording import FORMULA
from advisor.specs import Model, ModelSpec, Recipe, Workload

DEFAULT_SIZE = "1024x1024"
SHRINKS_FIRST = ("llamafactory",)
"""Trainers that shrink an image to their limit before the model's processor sees it.

Source: llamafactory 0.9.5, data/mm_plugin.py, _preprocess_image.
"""


class RowImages(NamedTuple):
    """The fields of a workload that say which images its rows have, and how many tokens these are."""

    fields: Mapping[str, Any]
    tokens: int


def images_of(question: Question, model: Model | None, collator: Mapping[str, object]) -> RowImages:
    """The images of a row: none unless the question says so.

    Raises InputError for a size without images, and for rows that trainers do not make of images.
    """
    if not question.images:
        for name, value in (("--image-size", question.image_size), ("--max-pixels", question.max_pixels)):
            if value is not None and question.images is None:
                raise InputError(f"{name} is set, but rows have no images; add --images N")
        return RowImages({}, 0)
    if question.packing:
        raise BadValue("--packing", True, "must be off: TRL refuses to pack rows with images")
    if question.padding == "none":
        raise BadValue(
            "--padding", "none", "must be longest or max_length: TRL refuses rows with images without padding"
        )
    limit = question.max_pixels if question.max_pixels is not None else int(str(collator.get("max_pixels", 0)))
    size = question.image_size or DEFAULT_SIZE
    if limit and question.trainer in SHRINKS_FIRST:
        width, height = map(int, size.split("x"))
        height, width = shrunk(height, width, limit)
        size, limit = f"{width}x{height}", 0
    fields = {"images": question.images, "image_size": size, "max_pixels": limit}
    if model is None:
        return RowImages(fields, 0)
    seen = with_pictures(model, Workload.model_validate(fields))
    assert isinstance(seen, ModelSpec) and seen.vision is not None
    return RowImages(fields, seen.vision.row_tokens)


def tower_use(m: Model, recipe: Recipe) -> TowerUse | None:
    """What the tower of a model that sees takes of an answer."""
    if not isinstance(m, ModelSpec) or m.vision is None:
        return None
    return TowerUse(
        parameters=tower_parameter_count(m.vision),
        weight_bytes=tower_bytes(m.vision, recipe),
        image_tokens=m.vision.row_tokens,
    )


def image_notes(question: Question, m: Model, workload: Workload) -> list[Reason]:
    """What was assumed about images, and what stands for them in a row."""
    if not isinstance(m, ModelSpec) or m.vision is None:
        return []
    if not workload.images:
        text = f"Rows of text: the vision tower of {m.name} is loaded and idle; --images N --image-size WxH for images."
        return [Reason(code="assumption", text=text, source=FORMULA)]
    one = m.vision.row[0]
    size = workload.image_size.replace("x", " x ")
    assumed = "" if question.image_size else " (assumed; give --image-size)"
    text = (
        f"{workload.images:,} image{'s' * (workload.images > 1)} of {size} pixels a row{assumed}: {one.tokens:,} "
        f"token{'s' * (one.tokens > 1)} and {one.patches:,} patches each. "
        f"--seq-len and --mean-seq-len count the tokens of images, too."
    )
    return [Reason(code="assumption", text=text, source="transformers 5.23, the model's image processor")]
