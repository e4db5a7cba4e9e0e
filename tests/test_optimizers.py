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
        ("lion", [524288], [8192], [32768]),
        ("lion_8bit", [131072, 2048], [8192], [8192, 128]),
        ("paged_lion", [], [8192], [32768]),
        ("paged_lion_8bit", [2048], [8192], [8192, 128]),
        ("ademamix", [1048576, 524288], [16384, 8192], [65536, 32768]),
        ("ademamix_8bit", [262144, 131072, 4096, 2048], [16384, 8192], [16384, 8192, 256, 128]),
        ("paged_ademamix_8bit", [4096, 2048], [16384, 8192], [16384, 8192, 256, 128]),
        ("rmsprop", [262144], [4096], [32768]),
        ("rmsprop_8bit", [131072, 2048], [8192], [8192, 128]),
        ("adamw_torchao_8bit", [131072, 2048, 1024] * 2, [4096] * 2, [8192, 128, 1024] * 2),
        ("adamw_torchao_4bit", [65536, 2048, 64] * 2, [4096] * 2, [4096, 128, 64] * 2),
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
    assert beside["paged_adamw"] == beside["sgd"] == beside["lion"] == []
    assert beside["lion_8bit"] == tables[:1]
    assert beside["ademamix_8bit"] == tables


def test_temporaries_by_hand() -> None:
    shapes = [MATRIX, SMALL._replace(times=3)]
    assert temporary_bytes(shapes, "adamw_foreach") == 262144 + 3 * 4096
    assert temporary_bytes(shapes, "adafactor") == 4 * 4 * 131072
    assert temporary_bytes([VECTOR], "adafactor") == 2 * 4 * 8192
    assert {temporary_bytes(shapes, name) for name in ("adamw", "adamw_8bit", "sgd")} == {0}


def test_transformers_names_lead_back() -> None:
    named = {name: row for name, row in OPTIMIZERS.items() if row.transformers_name}
    assert {named_in_transformers(row.transformers_name): row for row in named.values()} == named
    assert set(OPTIMIZERS) - set(named) == {"muon", "came"}
    assert named_in_transformers("") is None
    assert named_in_transformers("lion_4bit") is None


def test_an_unknown_optimizer_is_an_error_everywhere() -> None:
    with pytest.raises(BadValue, match="lion_4bit"):
        Recipe(method="lora").model_copy(update={"optimizer": "lion_4bit"})
    for asks in (
        lambda: optimizer_row("lion_4bit"),
        lambda: list(kept_tensors([MATRIX], "lion_4bit")),
        lambda: optimizer_work([MATRIX], "lion_4bit"),
        lambda: temporary_bytes([MATRIX], "lion_4bit"),
    ):
        with pytest.raises(UnknownName, match="unknown optimizer 'lion_4bit'"):
            asks()
