"""`advise compare`: one row for each pair, the fastest and the cheapest marked."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from advisor.advice.compare import Pair
from advisor.answer import Advice
from advisor.cli import cli
from advisor.knobs import KNOBS
from advisor.units import format_gib


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["compare", *arguments])


def rows_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith(("llama-3.2-1b", "llama-70b"))]


TWO = ("--model", "llama-3.2-1b", "--model", "llama-70b", "--gpu", "24GB", "--gpu", "rtx4090")


def test_a_row_for_each_pair() -> None:
    result = run(*TWO, "--examples", "3000", "--price-per-hour", "0.1", "--price-per-hour", "0.5")
    assert result.exit_code == 0, result.output
    rows = rows_of(result.stdout)
    assert [row[:2] for row in rows] == [
        ["llama-3.2-1b", "24GB"],
        ["llama-3.2-1b", "rtx4090"],
        ["llama-70b", "24GB"],
        ["llama-70b", "rtx4090"],
    ]
    assert [row[3] for row in rows] == ["yes", "yes", "no", "no"]
    assert [row[-1] for row in rows] == ["cheapest", "fastest", "-", "-"]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_figures_are_those_of_the_answer() -> None:
    asked = ("--model", "llama-3.2-1b", "--gpu", "24GB", "--method", "lora", "--price-per-hour", "2")
    (row,) = rows_of(run(*asked).stdout)
    (pair,) = json.loads(run(*asked, "--json").stdout)
    answer = Advice.model_validate(pair["advice"])
    needed, plan = answer.candidate("lora").memory.needed_bytes, answer.candidate("lora")
    assert plan.cost is not None
    shown = f"lora yes {plan.recipe.micro_batch}x{plan.recipe.gradient_accumulation}"
    assert " ".join(row[2:5]) == shown
    assert format_gib(needed.likely) in row
    assert row[-1] == f"{plan.cost.likely:,.2f}"  # alone, it is neither the fastest nor the cheapest


def test_json_is_a_list_of_pairs() -> None:
    result = run(*TWO, "--json")
    pairs = [Pair.model_validate(one) for one in json.loads(result.stdout)]
    assert [(pair.model, pair.gpu) for pair in pairs][1] == ("llama-3.2-1b", "rtx4090")
    assert [pair.advice.recommendation is None for pair in pairs] == [False, False, True, True]


def test_exits_with_three_if_nothing_fits_anywhere() -> None:
    result = run("--model", "llama-70b", "--gpu", "24GB", "--gpu", "rtx4090")
    assert result.exit_code == 3
    assert "`advise` says what would fit" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "gpt2"), "no --gpu to compare"),
        (("--gpu", "24GB"), "no --model to compare"),
        (
            (*TWO, "--gpu", "t4", "--price-per-hour", "1", "--price-per-hour", "2"),
            "2 of --price-per-hour for 3 of --gpu",
        ),
        ((*TWO, "--gpu", "rtx4091"), "unknown GPU 'rtx4091'"),
        ((*TWO, "--price-per-hour", "-1"), "--price-per-hour"),
        ((*TWO, "--rank", "0"), "1 to 16,384"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_it_takes_every_knob() -> None:
    text = " ".join(run("--help").stdout.split())
    assert all(knob.flag in text for knob in KNOBS)
    assert text.count("can be repeated") == 3
