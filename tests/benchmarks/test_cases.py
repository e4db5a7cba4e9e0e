"""Public reports, each asked by its own command line."""

from __future__ import annotations

import pytest

from benchmarks.cases import Case, judged, reports

REPORTS = reports()
CASES = [judged(report) for report in REPORTS]


def test_thirty_reports_with_their_sources() -> None:
    assert len(REPORTS) == 30
    for report in REPORTS:
        assert report["url"].startswith("https://")
        assert report["command"].startswith("advise ")
        assert report["expected"]


def test_how_many_are_right() -> None:
    assert sum(case.outcome == "right" for case in CASES) >= 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.report["url"].partition("github.com/")[2])
def test_what_is_not_right_has_a_known_reason(case: Case) -> None:
    assert (case.outcome != "right") == bool(case.report.get("wrong_because")), case.answer


@pytest.mark.parametrize(
    ("expected", "outcome"),
    [
        ({"runs": False}, "right"),
        ({"runs": True}, "wrong"),
        ({"memory_gib": [50, 60]}, "right"),
        ({"memory_gib": [5, 6]}, "wrong"),
        ({"hours": 10}, "right"),
        ({"hours": 10_000}, "wrong"),
    ],
)
def test_an_expectation_can_be_met_and_missed(expected: dict[str, object], outcome: str) -> None:
    command = "advise --model llama-2-70b --gpu a100-40gb --method qlora --rank 64 --seq-len 2048 --micro-batch 1"
    assert judged({"command": command, "expected": expected}).outcome == outcome
