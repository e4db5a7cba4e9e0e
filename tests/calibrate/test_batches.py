from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog import find_model
from advisor.costs.micro_batches import MicroBatch
from advisor.errors import BadValue
from advisor.specs import Recipe, Workload
from calibrate.batches import as_drawn, draw, evaluated_batch, micro_batch_of, pictures_in, rows_of, seeing, varies

RECIPE = Recipe(method="lora", micro_batch=3, gradient_accumulation=2, eval_batch=4)


def rows(**knobs: Any) -> Workload:
    found = rows_of({"micro_batch": "3", **knobs}, 64)
    assert found is not None
    return found


def test_rows_are_full_unless_a_flag_says_otherwise() -> None:
    assert rows_of({"micro_batch": "3", "seq_len": "64", "mean_seq_len": None}, 64) is None
    assert rows_of({}, 64, "axolotl") is None
    assert micro_batch_of(RECIPE, 64, None) == MicroBatch(3, 64)
    assert evaluated_batch(RECIPE, 64, None) == MicroBatch(4, 64)
    assert evaluated_batch(RECIPE.model_copy(update={"eval_batch": 0}), 64, None) is None


@pytest.mark.parametrize(
    ("knobs", "trainer", "varying", "batch"),
    [
        ({"mean_seq_len": "30"}, "", True, MicroBatch(3, 64, True)),
        ({"mean_seq_len": "30"}, "axolotl", True, MicroBatch(3, 64, True)),
        ({"mean_seq_len": "30", "padding": "max-length"}, "", False, MicroBatch(3, 64, True)),
        ({"mean_seq_len": "30", "packing": True}, "", False, MicroBatch(3, 64)),
        ({"packing": True, "packing_strategy": "position-ids"}, "", False, MicroBatch(1, 192, True, True)),
        ({"packing": True}, "trl", False, MicroBatch(1, 192, True, True)),
    ],
)
def test_what_the_flags_ask_for(knobs: dict[str, Any], trainer: str, varying: bool, batch: MicroBatch) -> None:
    found = rows_of({"micro_batch": "3", **knobs}, 64, trainer)
    assert varies(found) == varying
    assert micro_batch_of(RECIPE, 64, found) == batch


def test_draws_are_the_same_every_time_and_padded_as_asked() -> None:
    asked = rows(mean_seq_len="30", pad_to_multiple_of="8")
    draws = draw(asked, RECIPE, steps=20)
    assert draws == draw(asked, RECIPE, steps=20) != draw(asked, RECIPE, steps=20, seed=1)
    assert {(len(step), len(drawn.lengths)) for step in draws for drawn in step} == {(2, 3)}
    assert len(draws) == 21
    for drawn in (one for step in draws for one in step):
        assert 0 <= drawn.tokens - max(drawn.lengths) < 8
        assert drawn.tokens % 8 == 0
        assert drawn.batch == MicroBatch(3, drawn.tokens, padded=min(drawn.lengths) < drawn.tokens)


def test_the_worst_of_what_was_drawn_is_the_largest_draw() -> None:
    asked = rows(mean_seq_len="30")
    draws = draw(asked, RECIPE, steps=5)
    longest = max(drawn.tokens for step in draws for drawn in step)
    assert micro_batch_of(RECIPE, 64, as_drawn(asked, draws)) == MicroBatch(3, longest, True)


def test_varying_rows_without_padding_are_refused() -> None:
    with pytest.raises(BadValue, match="--padding"):
        draw(Workload(seq_len=64, mean_seq_len=30, padding="none"), RECIPE)


def test_the_images_that_flags_give_each_row() -> None:
    model = find_model("qwen2.5-vl-3b")
    seen = seeing(model, {"images": "2", "image_size": "640x480", "max_pixels": None})
    assert seen is not None
    assert [one.tokens for one in pictures_in(seen)] == [391, 391]
    assert seeing(model, {"images": None}) is model
    assert (pictures_in(model), pictures_in(None)) == ((), ())


@pytest.mark.parametrize(
    ("model", "message"),
    [("llama-3.2-1b", "reads text alone"), ("", "must be 0 for a model that the formula does not know")],
)
def test_images_for_a_model_that_reads_none(model: str, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        seeing(find_model(model) if model else None, {"images": "1"})
