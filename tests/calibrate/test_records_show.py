"""What is said of a burst besides one step: every step of rows that vary, and an evaluation."""

from __future__ import annotations

from typing import Any

from calibrate.burst_record import DrawnStep
from calibrate.checks import is_clean, marks_of
from calibrate.measurement import Comparison
from calibrate.records_show import beyond_one_step, reserved_after, step_errors
from calibrate.report import report_html
from tests.calibrate import made_up
from tests.calibrate.made_up import GIB, figures, run

DRAWN = tuple(DrawnStep(lengths=((n, 5),), predicted_bytes=GIB) for n in range(1, 21))


def varying(reserved: tuple[int | None, ...], drawn: tuple[DrawnStep, ...] = DRAWN, **more: Any) -> Comparison:
    found = made_up.record(
        run=run(step_s=(0.1, 0.5) * 10, step_peak_bytes=(GIB, 2 * GIB) * 10, step_reserved_bytes=reserved), **more
    )
    assert found.burst is not None
    return found.model_copy(update={"rows": "padded", "burst": found.burst.model_copy(update={"drawn": drawn})})


def test_each_step_is_set_beside_its_prediction() -> None:
    record = varying(tuple(range(GIB, 21 * GIB, GIB)))
    assert step_errors(record) == [0.0, -0.5] * 10
    steps, reserved = beyond_one_step(record)
    assert (
        steps
        == "tiny lora 1x64 varying c: 20 steps of 20 shapes: error of the peak 50.00% at the median, 50.00% at most"
    )
    assert reserved == "tiny lora 1x64 varying c: reserved, GiB: 10.000 after 10, 20.000 after 20 steps; no prediction"
    assert steps in report_html([record])


def test_what_a_cpu_does_not_know_is_not_zero() -> None:
    record = varying((None,) * 20)
    assert list(beyond_one_step(record))[1].endswith("reserved: not known")
    assert record.burst is not None
    assert record.burst.run is not None
    assert reserved_after(record.burst.run, 10) is None


def test_steps_without_a_formula_have_no_error() -> None:
    unknown = tuple(step.model_copy(update={"predicted_bytes": None}) for step in DRAWN)
    assert next(beyond_one_step(varying((None,) * 20, unknown))).endswith("20 shapes: no prediction")


def test_times_of_such_rows_are_not_fitted_nor_called_unsteady() -> None:
    record = varying((None,) * 20)
    assert [mark.code for mark in marks_of(record)] == ["rows"]
    assert not is_clean(record, "time")
    assert is_clean(record, "memory")


def test_an_evaluation_is_set_beside_its_prediction() -> None:
    measured = figures().model_copy(update={"evaluation_bytes": 2 * GIB})
    predicted = figures().model_copy(update={"evaluation_bytes": GIB})
    (line,) = beyond_one_step(made_up.record(measured=measured, predicted=predicted))
    assert line == "tiny lora 1x64 c: evaluation, GiB: predicted 1.000, measured 2.000, error -50.00%"
