from __future__ import annotations

from typing import Any

import pytest

from calibrate.burst_record import Conditions
from calibrate.checks import is_clean, is_worst, marks_of
from tests.calibrate import made_up
from tests.calibrate.made_up import gpu, record

STEADY = (0.1, 0.101, 0.099, 0.1, 0.1, 0.101, 0.1, 0.099, 0.1)


def codes(device: Any = made_up.CPU, **changes: Any) -> list[str]:
    return [mark.code for mark in marks_of(record(device=device, run=made_up.run(**changes)))]


def test_a_good_burst_has_no_mark() -> None:
    assert codes(step_s=STEADY) == []
    good = record(run=made_up.run(step_s=STEADY))
    assert is_clean(good, "time")
    assert is_clean(good, "memory")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"step_s": (0.1, 0.1)}, "few steps"),
        ({"step_s": (0.12, 0.1, 0.12, 0.1, 0.12, 0.1, 0.12, 0.1)}, "spread"),
        ({"step_s": (0.108, 0.108, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)}, "drift"),
        ({"step_s": STEADY, "cpu_share": 0.9}, "busy CPU"),
        ({"step_s": STEADY, "others_cores": 3.3}, "busy CPU"),
    ],
)
def test_what_spoils_times_on_a_cpu(changes: dict[str, Any], code: str) -> None:
    assert codes(**changes) == [code]
    spoilt = record(run=made_up.run(**changes))
    assert not is_clean(spoilt, "time")
    assert is_clean(spoilt, "memory")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"throttled": ("temperature",)}, "throttled"),
        ({"before": Conditions(other_processes=1)}, "shared card"),
        ({"after": Conditions(other_processes=2)}, "shared card"),
        ({"after": Conditions(sm_clock_base_hz=1.5e9), "clocks_hz": (1.2e9, 1.3e9)}, "slow clock"),
        ({"after": Conditions(power_limit_w=300.0, power_limit_default_w=400.0)}, "lowered"),
        ({"others_cores": 14.5}, "busy CPU"),
    ],
)
def test_what_spoils_times_on_a_card(changes: dict[str, Any], code: str) -> None:
    assert codes(gpu(), step_s=STEADY, **changes) == [code]
    assert not is_clean(record(device=gpu(), run=made_up.run(step_s=STEADY, **changes)), "time")


def test_a_card_at_its_power_limit_is_as_it_is() -> None:
    """Its clock is below base, and that is its speed."""
    changes: dict[str, Any] = {
        "throttled": ("power limit",),
        "clocks_hz": (1.2e9,),
        "after": Conditions(sm_clock_base_hz=1.5e9),
    }
    assert codes(gpu(), step_s=STEADY, **changes) == ["power"]
    assert is_clean(record(device=gpu(), run=made_up.run(step_s=STEADY, **changes)), "time")


def test_what_the_driver_does_not_tell_is_no_finding() -> None:
    assert codes(gpu(), step_s=STEADY, clocks_hz=(1e9,), others_cores=None) == []


def test_a_failed_burst_is_fitted_for_nothing() -> None:
    failed = record(outcome="crashed")
    assert [mark.code for mark in marks_of(failed)] == ["no result", "no result"]
    assert not is_clean(failed, "time")
    assert not is_clean(failed, "memory")


def test_memory_of_trls_loss_on_a_cpu_is_not_that_of_a_card() -> None:
    assert not is_clean(record(loss="chunked"), "memory")
    assert is_clean(record(loss="chunked", device=gpu()), "memory")


@pytest.mark.parametrize(
    ("outcome", "verdict", "worst"),
    [
        ("out_of_memory", "fits", True),
        ("out_of_memory", "tight", False),
        ("crashed", "fits", False),
        ("done", "fits", False),
    ],
)
def test_the_worst_is_out_of_memory_where_it_was_said_to_fit(outcome: str, verdict: str, worst: bool) -> None:
    assert is_worst(record(outcome=outcome, verdict=verdict)) is worst


def test_a_dry_run_is_not_judged() -> None:
    assert marks_of(record().model_copy(update={"burst": None})) == ()
