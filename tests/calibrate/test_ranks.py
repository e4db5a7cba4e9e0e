"""What the flags about several cards ask for, without torch."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog import find_model
from advisor.costs.micro_batches import MicroBatch
from advisor.errors import BadValue
from advisor.specs import Placement, Recipe
from calibrate.options import recipe_of
from calibrate.ranks import how, placed, rank_memory


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"gpus": 0}, "from 1 to 100,000"),
        ({"gpus": 4, "sharding": "zero3"}, "ddp, fsdp2, hsdp are"),
        ({"gpus": 4, "offload": "parameters"}, "card and host are one"),
        ({"gpus": 4, "eval_batch": 2}, "one card alone"),
        ({"gpus": 4, "nodes": 2}, "--network-gbit"),
        ({"sharding": "fsdp2"}, "add --gpus"),
        ({"gpus": 1, "offload": "optimizer"}, "give --gpus"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(knobs: dict[str, Any], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        placed(knobs)


def test_several_cards_are_said_in_words() -> None:
    assert placed({"gpus": None, "offload": "activations"}) is None
    assert how(placed({"gpus": "8"}) or Placement()) == "one of 8 cards (ddp)"
    kept = Placement(gpus=16, nodes=2, sharding="hsdp", reshard=False)
    assert how(kept) == "one of 16 cards of 2 machines (hsdp, not resharded)"


def test_the_batch_is_that_of_all_cards() -> None:
    assert recipe_of("lora", {"gpus": 4, "micro_batch": 2, "batch_size": 24})[0].gradient_accumulation == 3
    assert recipe_of("lora", {"gpus": 4, "micro_batch": 2})[0].gradient_accumulation == 1
    with pytest.raises(BadValue, match="multiple of --gpus times --micro-batch, which is 8"):
        recipe_of("lora", {"gpus": 4, "micro_batch": 2, "batch_size": 12})


def test_static_has_the_buckets_of_ddp() -> None:
    m, recipe = find_model("smollm2-135m"), Recipe(method="lora")
    alone, copied = (
        rank_memory(m, recipe, Placement(gpus=gpus, sharding=sharding), MicroBatch(1, 64))
        for gpus, sharding in ((8, "fsdp2"), (2, "ddp"))
    )
    assert alone.buckets_bytes == 0
    assert copied.buckets_bytes == copied.adapters_bytes > alone.adapters_bytes
    assert copied.static_bytes is not None
    assert copied.static_bytes > copied.base_weights_bytes + copied.adapters_bytes + copied.optimizer_states_bytes
