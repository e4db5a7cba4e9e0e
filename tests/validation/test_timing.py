"""Step times that others measured, predicted as they were run: the table behind `advise validate --time`."""

from __future__ import annotations

import json
from statistics import median

import pytest
from click.testing import CliRunner

from advisor.cli import cli
from advisor.errors import UnknownName
from advisor.validation.figures import published_rows
from advisor.validation.timing import Ratio, Timed, ratios_of, refusal, shapes_of, validate_time

REPORT = validate_time()


def one(row: str) -> Timed:
    (found,) = [timed for timed in REPORT.rows if timed.row["id"] == row]
    return found


def ratio(row: str) -> Ratio:
    (found,) = [comparison for comparison in REPORT.ratios if comparison.timed.row["id"] == row]
    return found


def test_every_row_is_timed_or_refused_with_a_reason() -> None:
    rows = published_rows()
    assert len(REPORT.rows) + len(REPORT.unanswered) == len(rows)
    assert len(REPORT.rows) == 27
    assert all(reason for _, reason in REPORT.unanswered)


@pytest.mark.parametrize(("row", "bar"), [("peft-mm-0097", 0.05), ("peft-mm-0088", 0.12), ("peft-mm-0101", 0.05)])
def test_dora_and_full_over_lora_in_pefts_comparison(row: str, bar: float) -> None:
    assert abs(ratio(row).error) <= bar


def test_the_shape_over_256_to_8192_tokens() -> None:
    errors = [abs(error) for timed, error in REPORT.shapes if timed.row["group"] == "qwen1"]
    assert len(errors) == 12
    assert median(errors) <= 0.08
    assert max(errors) <= 0.20


def test_the_level_over_256_to_8192_tokens() -> None:
    assert median(abs(timed.error) for timed in REPORT.rows if timed.row["group"] == "qwen1") <= 0.20


def test_torchtunes_ratios() -> None:
    errors = [abs(found.error) for found in REPORT.ratios if found.timed.row["group"] == "torchtune"]
    assert len(errors) == 7
    assert median(errors) <= 0.10


def test_every_eager_row_lies_in_its_interval() -> None:
    eager = [timed for timed in REPORT.rows if not timed.compiled]
    assert len(eager) == 19
    assert all(timed.covered for timed in eager)


def test_a_bar_can_be_missed() -> None:
    slow = one("peft-mm-0097")._replace(measured_s=1.0)
    (found,) = ratios_of([slow, one("peft-mm-0099")])
    assert found.error < -0.5
    assert not slow.covered
    wrong = [one(f"qwen1-04{n:02}") for n in range(8, 13)] + [one("qwen1-0413")._replace(measured_s=60.0)]
    assert max(abs(error) for _, error in shapes_of(wrong)) > 0.5


def test_few_rows_make_no_shape() -> None:
    assert shapes_of([one("qwen1-0408"), one("qwen1-0409")]) == []


def test_compiled_rows_are_divided_by_a_compiled_row() -> None:
    assert ratio("torchtune-0359").measured == pytest.approx(1.1362 / 0.9104, rel=1e-3)


def test_a_row_without_its_length_is_refused() -> None:
    row = next(row for row in published_rows() if row["id"] == "raschka-0339")
    assert "length" in refusal(row)


def test_the_command_prints_the_table_and_its_summary() -> None:
    result = CliRunner().invoke(cli, ["validate", "--time"])
    assert result.exit_code == 0
    for timed in REPORT.rows:
        assert timed.row["id"] in result.output
    assert "in our interval: 19 of 19" in result.output


def test_json_holds_every_row() -> None:
    result = CliRunner().invoke(cli, ["validate", "--time", "--group", "peft-mm", "--json"])
    document = json.loads(result.output)
    assert [row["id"] for row in document["rows"]] == ["peft-mm-0088", "peft-mm-0097", "peft-mm-0099", "peft-mm-0101"]
    assert document["rows"][1]["ratio"]["measured"] == pytest.approx(1.196, abs=1e-3)


def test_unknown_groups_and_a_framework_are_refused() -> None:
    with pytest.raises(UnknownName, match="peft-mm"):
        validate_time("peft-m")
    result = CliRunner().invoke(cli, ["validate", "--time", "--framework", "lit-gpt"])
    assert result.exit_code == 2
    assert "--group" in result.output
