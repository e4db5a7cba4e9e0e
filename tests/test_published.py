"""What others measured, predicted as it was run."""

from __future__ import annotations

import pytest

from benchmarks.published_memory import BAR, lines, published_rows


def test_all_rows_are_there() -> None:
    assert len(published_rows("peft-mm")) == 5
    assert len(published_rows("fsdp_qlora-nb")) == 24
    assert len(lines()) == 5 + 20 * 3 + 4


@pytest.mark.parametrize("line", lines(), ids=lambda line: f"{line.row}-{line.what.replace(' ', '-')}")
def test_every_figure_is_within_the_bar(line: object) -> None:
    assert abs(line.error) <= BAR, line  # type: ignore[attr-defined]


def test_median_is_far_below_the_bar() -> None:
    errors = sorted(abs(line.error) for line in lines())
    assert errors[len(errors) // 2] <= 0.02


def test_the_bar_can_be_missed() -> None:
    line = lines()[0]
    assert abs(line._replace(predicted=line.predicted * 1.2).error) > BAR
