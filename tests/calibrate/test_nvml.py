from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from calibrate.burst_record import Conditions
from calibrate.nvml import WatchedCard, open_card
from tests.calibrate.fake_cuda import GIB, FakeNvmlError, fake_nvml, process


def card(**answers: Any) -> WatchedCard:
    return WatchedCard(fake_nvml(**answers), "card")


def test_what_the_driver_says_in_base_units() -> None:
    assert card().conditions(os.getpid()) == Conditions(
        sm_clock_hz=1.8e9,
        sm_clock_max_hz=2.1e9,
        sm_clock_base_hz=1.7e9,
        memory_clock_hz=1.8e9,
        memory_clock_max_hz=2.1e9,
        power_w=210.0,
        power_limit_w=220.0,
        power_limit_default_w=240.0,
        temperature_c=61.0,
        throttled=("power limit", "temperature"),
        other_processes=0,
        other_bytes=0,
    )
    assert card().driver() == "580.65"
    assert card(nvmlSystemGetDriverVersion="581.1").driver() == "581.1"
    assert card().free_bytes() == GIB
    assert card().process_bytes(os.getpid()) == int(6.5 * GIB)


def test_what_it_refuses_is_none() -> None:
    refused = {name: FakeNvmlError("Not Supported") for name in vars(fake_nvml()) if name.startswith("nvml")}
    silent = card(**refused)
    assert silent.conditions(1) == Conditions()
    assert (silent.driver(), silent.clock_hz(), silent.throttled()) == ("", None, ())
    assert (silent.free_bytes(), silent.process_bytes(1)) == (None, None)


def test_reasons_had_another_name_before() -> None:
    old = card(nvmlDeviceGetCurrentClocksEventReasons=AttributeError, nvmlDeviceGetCurrentClocksThrottleReasons=0x40)
    assert old.throttled() == ("temperature (hardware)",)
    neither = card(nvmlDeviceGetCurrentClocksEventReasons=AttributeError)
    assert neither.throttled() == ()


@pytest.mark.parametrize(
    ("processes", "others", "held"),
    [
        ([], 0, 0),
        ([process(7, 2), process(9, 1)], 1, GIB),
        ([process(9, 1)], 0, 0),  # a container's own number for this process
        ([process(9, 1), process(11, 1)], 1, None),
    ],
)
def test_other_processes(processes: list[Any], others: int, held: int | None) -> None:
    found = card(nvmlDeviceGetComputeRunningProcesses=processes).conditions(7)
    assert (found.other_processes, found.other_bytes) == (others, held)


def test_a_process_that_the_driver_does_not_weigh() -> None:
    unweighed = process(7, 0)
    assert card(nvmlDeviceGetComputeRunningProcesses=[unweighed]).process_bytes(7) is None


def test_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    assert open_card("GPU-1234") is not None
    assert open_card() is not None
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=FakeNvmlError("Driver Not Loaded")))
    assert open_card() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_card() is None
