"""How often published figures lie in the stated intervals."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from advisor.cli import cli
from advisor.interval import Interval
from advisor.validation.coverage import Held, coverages, held_figures

FIGURES = {"reserved": 9, "allocated": 87, "on the card": 12, "step time": 19}
FOUND = held_figures()


def test_every_counter_has_its_figures() -> None:
    assert {one.counter: one.figures for one in coverages(FOUND)} == FIGURES


@pytest.mark.parametrize("counter", FIGURES)
def test_nine_of_ten_lie_inside_an_interval_of_use(counter: str) -> None:
    one = next(one for one in coverages(FOUND) if one.counter == counter)
    assert one.share >= 0.9
    assert one.width <= {"step time": 0.65}.get(counter, 0.25)


def test_inside_and_width_of_known_figures() -> None:
    stated = Interval(8.0, 10.0, 14.0)
    found = [Held("x", "row", "group", measured, stated) for measured in (7.9, 8.0, 12.0, 14.1)]
    assert [one.inside for one in found] == [False, True, True, False]
    (line,) = coverages(found)
    assert (line.figures, line.inside, line.share, line.width) == (4, 2, 0.5, 0.6)


def test_the_command_prints_the_table_and_what_lies_outside() -> None:
    text = CliRunner().invoke(cli, ["validate", "--coverage"]).stdout
    assert "allocated         87" in text
    assert "qwen1-0413" in text
    document = json.loads(CliRunner().invoke(cli, ["validate", "--coverage", "--json"]).stdout)
    assert {one["counter"]: one["figures"] for one in document["counters"]} == FIGURES
    assert len(document["figures"]) == sum(FIGURES.values())


def test_it_is_about_all_rows() -> None:
    result = CliRunner().invoke(cli, ["validate", "--coverage", "--time"], standalone_mode=False)
    assert "--coverage is about all rows" in str(result.exception)
