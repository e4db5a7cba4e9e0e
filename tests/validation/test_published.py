"""What others measured, predicted as it was run: the table behind `advise validate`."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from advisor.cli import cli
from advisor.errors import UnknownName
from advisor.interval import Interval
from advisor.validation.figures import Figure, Unanswered, published_rows
from advisor.validation.report import SOURCES, FitCheck, Line, quality_of, validate
from advisor.validation.torchtune import full_finetune
from benchmarks.published_memory import MEDIAN_BARS, judged_lines, missed_bars

REPORT = validate()
ROWS = {
    "peft-mm": 7,
    "litgpt-a100": 39,
    "raschka": 8,
    "torchtune": 9,
    "qwen1": 12,
    "fsdp_qlora": 16,
    "fsdp_qlora-nb": 24,
}


def error_of(row: str, what: str) -> float:
    found = [line.figure.error for line in REPORT.lines if (line.row["id"], line.figure.what) == (row, what)]
    assert len(found) == 1
    return found[0]


def test_all_rows_are_there_once() -> None:
    rows = published_rows()
    assert Counter(row["group"] for row in rows) == ROWS
    assert set(SOURCES) == set(ROWS)
    assert len({row["id"] for row in rows}) == len(rows)


def test_every_row_names_its_source_counter_and_unit() -> None:
    for row in published_rows():
        assert row["url"].startswith("https://")
        assert row["source_unit"] in ("bytes", "GB", "GiB", "G")
        assert row["mem_counter"]
        assert row["status"] in ("ok", "oom")
        assert len(row.get("notes", "")) < 80


def test_every_row_is_answered_or_refused_with_a_reason() -> None:
    answered = {line.row["id"] for line in REPORT.lines} | {v.row["id"] for v in REPORT.verdicts}
    refused = {row["id"] for row, _ in REPORT.unanswered}
    assert answered.isdisjoint(refused)
    assert len(answered) + len(refused) == sum(ROWS.values())
    assert all(reason for _, reason in REPORT.unanswered)


@pytest.mark.parametrize("framework", MEDIAN_BARS)
def test_medians_are_within_their_bars(framework: str) -> None:
    lines = judged_lines(REPORT, framework)
    assert lines
    assert quality_of(framework, lines).median <= MEDIAN_BARS[framework]


def test_a_bar_can_be_missed() -> None:
    assert missed_bars(REPORT) == []
    high = [x.figure._replace(predicted_bytes=x.figure.predicted_bytes * 1.1) for x in REPORT.lines]
    spoilt = [x._replace(figure=figure) for x, figure in zip(REPORT.lines, high, strict=True)]
    assert len(missed_bars(REPORT._replace(lines=spoilt))) == len(MEDIAN_BARS)


def test_lit_gpt_without_quantization_is_within_half_a_percent_where_layers_have_layer_norm() -> None:
    for number in (235, 238, 239, 240, 243, 244):
        assert abs(error_of(f"litgpt-a100-0{number}", "peak allocated")) <= 0.005, number


def test_notebook_snapshots_are_within_a_percent_and_its_peaks_within_two() -> None:
    lines = [x for x in REPORT.lines if x.row["group"] == "fsdp_qlora-nb"]
    snapshots = [abs(x.figure.error) for x in lines if x.figure.what != "peak allocated"]
    assert (len(snapshots), len(lines)) == (20 * 3, 20 * 3 + 4)
    assert max(snapshots) <= 0.01
    assert max(abs(x.figure.error) for x in lines) <= 0.02


def test_complete_rows_of_transformers_are_within_six_percent_and_never_three_percent_low() -> None:
    errors = [line.figure.error for line in judged_lines(REPORT, "huggingface")]
    assert len(errors) == 66
    assert max(map(abs, errors)) <= 0.06
    assert min(errors) >= -0.03


def test_peft_comparison_is_within_six_percent() -> None:
    errors = [line.figure.error for line in REPORT.lines if line.row["group"] == "peft-mm"]
    assert len(errors) == 7
    assert max(map(abs, errors)) <= 0.06


def test_reserved_memory_of_fixed_shapes_is_replayed_within_three_percent() -> None:
    lines = [line for line in REPORT.lines if line.row["group"] == "fsdp_qlora"]
    assert len(lines) == 2
    assert max(abs(line.figure.error) for line in lines) <= 0.03


def test_verdicts_on_runs_that_ran_out_of_memory() -> None:
    out = [v for v in REPORT.verdicts if not v.ran]
    assert len(out) == 7
    assert all(v.right for v in out)
    assert all(v.right for v in REPORT.verdicts if v.ran)


def test_a_verdict_can_be_wrong() -> None:
    row = published_rows("raschka")[0]
    assert not FitCheck(row, True, "does_not_fit").right
    assert not FitCheck(row, False, "fits").right
    assert not FitCheck(row, False, "tight").right


def test_compiled_runs_are_refused() -> None:
    compiled = [row for row in published_rows("torchtune") if row["compile"]]
    assert len(compiled) == 8
    assert isinstance(full_finetune(compiled[0]), Unanswered)


@pytest.mark.parametrize(
    ("group", "changes", "words"),
    [
        ("peft-mm", {"group": "somebody"}, "is not described here"),
        ("raschka", {"model_id": "some/model"}, "is not described here"),
        ("raschka", {"target_modules": ["q", "v", "mlp"]}, "layers other"),
        ("qwen1", {"method": "qlora"}, "GPTQ"),
    ],
)
def test_rows_that_nothing_is_known_of_are_refused(
    group: str, changes: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advisor.validation.report.published_rows", lambda: [published_rows(group)[0] | changes])
    ((_, reason),) = validate().unanswered
    assert words in reason


def test_quality_of_known_errors() -> None:
    row = published_rows("peft-mm")[0]
    lines = [
        Line(row, "x", Figure("peak", "reserved", 100.0, 100.0 * (1 + e), Interval.exact(100.0)))
        for e in (0.1, -0.2, 0.0, 0.04)
    ]
    found = quality_of("x", lines)
    assert (found.figures, found.rows) == (4, 1)
    assert found.median == pytest.approx(0.07)
    assert (found.worst_over, found.worst_under) == pytest.approx((0.1, -0.2))


def test_command_filters_and_prints_one_document() -> None:
    result = CliRunner().invoke(cli, ["validate", "--framework", "torchtune", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["rows"] == 9
    assert [figure["id"] for figure in document["figures"]] == ["torchtune-0356"]
    assert {figure["framework"] for figure in document["figures"]} == {"torchtune"}
    assert len(document["not_predicted"]) == 8
    assert len(validate(group="raschka").lines) == 4


def test_command_prints_every_figure_and_the_verdicts() -> None:
    result = CliRunner().invoke(cli, ["validate"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum(line.startswith(tuple(ROWS)) for line in lines) == len(REPORT.lines)
    assert "runs that ran out of memory: 7 of 7 verdicts right" in lines


@pytest.mark.parametrize("option", ["--group", "--framework"])
def test_unknown_filters_are_refused_in_one_line(option: str) -> None:
    result = CliRunner().invoke(cli, ["validate", option, "lit-gtp"])
    assert result.exit_code == 2
    assert "lit-gtp" in result.stderr
    assert result.stderr.count("\n") == 1
    with pytest.raises(UnknownName):
        validate(**{option[2:]: "nothing"})
