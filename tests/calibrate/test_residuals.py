from __future__ import annotations

import pytest

from calibrate.residuals import PEAK, STEP, by_method, errors, latest, spread
from tests.calibrate import made_up
from tests.calibrate.made_up import figures, record

NOISY = made_up.run(cpu_share=0.5)


def test_errors_are_predicted_over_measured() -> None:
    rows = [record(predicted=figures(1.1, 0.2), measured=figures(1.0, 0.1)), record(outcome="crashed")]
    assert errors(rows, PEAK) == pytest.approx([0.1])
    assert errors(rows, STEP) == pytest.approx([1.0])


def test_a_noisy_burst_counts_for_memory_only() -> None:
    rows = [record(run=NOISY)]
    assert len(errors(rows, PEAK)) == 1
    assert errors(rows, STEP) == []


def test_what_was_not_predicted_has_no_error() -> None:
    assert errors([record(predicted=figures(1.0, None))], STEP) == []


def test_spread_keeps_the_sign_of_the_worst() -> None:
    found = spread([0.01, -0.3, 0.02])
    assert found is not None
    assert (found.bursts, found.median, found.typical, found.worst) == (3, 0.01, 0.02, -0.3)
    assert spread([]) is None


def test_methods_without_errors_are_left_out() -> None:
    rows = [record("qdora"), record("lora"), record("dora", outcome="crashed")]
    assert list(by_method(rows, PEAK)) == ["lora", "qdora"]


def test_the_newest_result_of_each_burst() -> None:
    first, second = record(key="a", id="1"), record(key="a", id="2")
    other, failed = record(key="b", id="3"), record(key="a", id="4", outcome="crashed")
    assert latest([first, other, second]) == (second, other)
    assert latest([failed, first]) == (first,)
    assert latest([first, failed]) == (first,)  # a crash takes no measurement away
