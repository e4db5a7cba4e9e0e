"""Bars: filled up to each value, past the card's line exactly where the value is above it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor import advise
from advisor.advice.phrases import fits_column
from advisor.render.table import ASCII, bar, candidate_table
from tests.render.test_answer import ask

SIZES = st.floats(0.1, 200)


@given(SIZES, SIZES, SIZES, SIZES, st.integers(10, 24))
def test_a_bar_passes_the_line_exactly_if_the_value_does(
    a: float, b: float, c: float, memory: float, width: int
) -> None:
    least, likely, high = sorted((a, b, c))
    text = bar(least, likely, high, memory, width, ASCII)
    assert len(text) == width
    within, _, beyond = text.partition("|")
    assert bool(beyond.strip()) is (high > memory)
    assert ("#" in beyond or ">" in beyond) >= (least > memory)
    assert within.rstrip(" ") == within or high <= memory
    assert text.replace("|", "").rstrip(" >") == "".join(sorted(text.replace("|", "").rstrip(" >"), key="#=-".index))


@pytest.mark.parametrize(
    ("values", "expected"),
    [((4, 8, 10), "####====--  |   "), ((0.5, 0.5, 12), "#-----------|   "), ((12, 12, 12.5), "############|-  ")],
)
def test_bars(values: tuple[float, float, float], expected: str) -> None:
    assert bar(*values, 12, 16, ASCII) == expected


def test_what_is_beyond_the_bar_has_an_arrow() -> None:
    assert bar(30, 30, 30, 12, 16, ASCII) == "############|##>"


def test_columns_go_before_numbers_do() -> None:
    titles = []
    for width in (80, 70, 60, 50, 40):
        table, _ = candidate_table(ask(8), width, ASCII)
        titles.append([str(column.header).strip().replace("\n", " ") for column in table.columns])
    narrow = ["method", "least GiB", "plan GiB (at most)", "fits", "total"]
    assert titles[0] == [*narrow[:3], "memory", "fits", "batch", "total", "at dora's recipe: memory, time"]
    assert titles[-1] == narrow
    assert all(len(narrower) <= len(wider) for wider, narrower in itertools.pairwise(titles))


def test_a_plan_that_fills_the_card_does_not_pass_its_line() -> None:
    for width in range(10, 25):
        assert bar(1.0, 1.0, 146.8939495553899, 146.8939495553899, width, ASCII).partition("|")[2].strip() == ""


def test_a_plan_with_room_of_which_not_all_is_known_is_likely() -> None:
    advice = advise("tinyllama-1.1b", "rtx4090", 300, gpus=2, trainer="torchtune", method="lora")
    row = advice.candidate("lora")
    assert (row.verdict, bool(row.evidence.unknown)) == ("tight", True)
    assert fits_column(row, advice.gpu.memory_bytes) == "likely"
    assert fits_column(row, round(row.memory.needed_bytes.likely)) == "tight"
