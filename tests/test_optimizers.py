"""The table of optimizers against bytes counted by hand, and that no unknown one slips through."""

from __future__ import annotations

from typing import get_args

import pytest

from advisor.costs.optimizer import kept_tensors, optimizer_work, temporary_bytes
from advisor.errors import BadValue, UnknownName
from advisor.optimizers import OPTIMIZERS, Optimizer, named_in_transformers, optimizer_row
from advisor.parameters.trained import Trained
from advisor.specs import Recipe

MATRIX = Trained(512, 256, 1, "bfloat16")  # 131,072 elements: large enough to be paged
SMALL = Trained(64, 32, 1, "bfloat16")  # 2,048 elements: too few for 8 bits
VECTOR = Trained(8192, 0, 1, "float32")


def test_every_name_has_a_row() -> None:
    assert set(OPTIMIZERS) == set(get_args(Optimizer))


@pytest.mark.parametrize(
    ("name", "matrix", "small", "vector"),
    [
        ("adamw", [262144] * 2, [4096] * 2, [32768] * 2),
        ("adamw_foreach", [262144] * 2, [4096] * 2, [32768] * 2),
        ("adamw_8bit", [131072, 131072, 2048, 2048], [8192] * 2, [8192, 8192, 128, 128]),
        ("paged_adamw", [], [8192] * 2, [32768] * 2),
        ("paged_adamw_8bit", [2048] * 2, [8192] * 2, [8192, 8192, 128, 128]),
        ("adafactor", [2048, 1024], [256, 128], [32768]),
        ("sgd", [], [], []),
    ],
)
def test_states_by_hand(name: str, matrix: list[int], small: list[int], vector: list[int]) -> None:
    assert [optimizer_row(name).states(p) for p in (MATRIX, SMALL, VECTOR)] == [matrix, small, vector]


def test_what_stands_beside_the_states() -> None:
    shapes = [MATRIX, Trained(8192, 0, 3, "float32")]
    beside = {name: [found for found in kept_tensors(shapes, name) if found[1] in (4, 1024)] for name in OPTIMIZERS}
    counters = [("optimizer step counters", 4, 4)]
    tables = [("optimizer states", 1024, 1)] * 2
    assert beside["adamw"] == beside["adamw_foreach"] == counters
    assert beside["adafactor"][-1:] == counters
    assert beside["adamw_8bit"] == beside["paged_adamw_8bit"] == tables
    assert beside["paged_adamw"] == beside["sgd"] == []


def test_temporaries_by_hand() -> None:
    shapes = [MATRIX, SMALL._replace(times=3)]
    assert temporary_bytes(shapes, "adamw_foreach") == 262144 + 3 * 4096
    assert temporary_bytes(shapes, "adafactor") == 4 * 4 * 131072
    assert temporary_bytes([VECTOR], "adafactor") == 2 * 4 * 8192
    assert {temporary_bytes(shapes, name) for name in ("adamw", "adamw_8bit", "sgd")} == {0}


def test_transformers_names_lead_back() -> None:
    assert {named_in_transformers(row.transformers_name): row for row in OPTIMIZERS.values()} == dict(OPTIMIZERS)
    assert named_in_transformers("lion_8bit") is None


def test_an_unknown_optimizer_is_an_error_everywhere() -> None:
    with pytest.raises(BadValue, match="lion_8bit"):
        Recipe(method="lora").model_copy(update={"optimizer": "lion_8bit"})
    for asks in (
        lambda: optimizer_row("lion_8bit"),
        lambda: list(kept_tensors([MATRIX], "lion_8bit")),
        lambda: optimizer_work([MATRIX], "lion_8bit"),
        lambda: temporary_bytes([MATRIX], "lion_8bit"),
    ):
        with pytest.raises(UnknownName, match="unknown optimizer 'lion_8bit'"):
            asks()
