"""The device layer: the CPU's own, and CUDA's with stand-ins for torch.cuda and NVML."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from advisor.errors import BadValue
from calibrate.nvml import WatchedCard
from calibrate.worker import device as device_layer
from calibrate.worker.cpu_memory import rounded
from calibrate.worker.device import CpuDevice, CudaDevice, open_device
from tests.calibrate.fake_cuda import GIB, OLD_DRIVER, FakeCuda, FakeNvmlError, fake_nvml, process

MIB = 2**20


def cuda(nvml: Any = None, **fake: Any) -> CudaDevice:
    return CudaDevice(FakeCuda(**fake), "cpu", WatchedCard(nvml or fake_nvml(), "card"))


def test_facts_of_a_card() -> None:
    facts = cuda().facts()
    assert (facts.kind, facts.name, facts.memory_bytes, facts.driver) == ("cuda", "NVIDIA Fake 8", 8 * GIB, "580.65")
    assert (facts.compute_capability, facts.multiprocessors) == ("8.6", 46)
    assert facts.signature == "cuda: NVIDIA Fake 8, 8 GiB"


def test_a_driver_that_is_too_old_is_one_line() -> None:
    with pytest.raises(BadValue, match=r"driver on your system is too old \(found version 11040\)") as error:
        cuda(error=OLD_DRIVER)
    assert "More" not in str(error.value)


def test_a_card_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    device = CudaDevice(FakeCuda(), "cpu")
    assert device.facts().driver == ""
    assert device.clock() == (None, ())
    assert device.conditions().sm_clock_hz is None
    assert device.available_bytes() == GIB  # what torch says is free
    assert device.read_memory(lambda after: after()).device_bytes is None


def test_what_a_card_offers_is_all_but_the_others() -> None:
    both = [process(os.getpid(), 2), process(1, 1.5)]
    assert cuda(fake_nvml(nvmlDeviceGetComputeRunningProcesses=both)).available_bytes() == int(6.5 * GIB)


def test_memory_of_a_card() -> None:
    device = cuda()
    steps: list[str] = []

    def step(after_forward: Any) -> None:
        after_forward()
        steps.append("done")

    found = device.read_memory(step)
    assert steps == ["done"]
    assert (found.peak_bytes, found.reserved_bytes) == (5 * GIB, 6 * GIB)
    assert (found.static_bytes, found.after_forward_bytes) == (3 * GIB + 1, 3 * GIB + 2)
    assert found.device_bytes == int(6.5 * GIB)
    assert found.exact_bytes is None


def test_memory_of_a_process_that_the_driver_does_not_know() -> None:
    alone = cuda(fake_nvml(nvmlDeviceGetComputeRunningProcesses=[]))
    assert alone.read_memory(lambda _: None).device_bytes == 7 * GIB
    shared = cuda(fake_nvml(nvmlDeviceGetComputeRunningProcesses=[process(1, 1), process(2, 1)]))
    assert shared.read_memory(lambda _: None).device_bytes is None


def test_time_of_a_card_is_that_of_its_events() -> None:
    device = cuda()
    begin, end = device.mark(), device.mark()
    begin.at_s, end.at_s = 1.0, 1.25
    device.synchronize()
    assert device.seconds(begin, end) == pytest.approx(0.25)


def test_settling_empties_the_cache_first() -> None:
    device = cuda()
    device.settle()
    assert device._cuda.calls == ["synchronize", "empty_cache", "reset_peak_memory_stats"]


def test_expandable_segments_are_asked_for_before_anything_is_allocated() -> None:
    asked: list[str] = []
    device = CudaDevice(FakeCuda(), "cpu", WatchedCard(fake_nvml(), "card"), asked.append)
    device.configure(False)
    assert asked == []
    device.configure(True)
    assert asked == ["expandable_segments:True"]


def test_clock_and_conditions_of_a_card() -> None:
    assert cuda().clock() == (1.8e9, ("power limit", "temperature"))
    assert cuda().conditions().power_w == 210.0


def test_memory_of_the_cpu_is_every_allocation_over_what_was_there() -> None:
    """Sizes in whole blocks, the peak in the middle of the step, and what is alive behind the forward pass."""
    kept: list[torch.Tensor] = []

    def step(after_forward: Any) -> None:
        first = torch.empty(MIB, dtype=torch.uint8)
        second = torch.empty(2 * MIB + 1, dtype=torch.uint8)
        del first
        after_forward()
        kept.append(second)

    found = CpuDevice().read_memory(step)
    assert found.peak_bytes - found.static_bytes == 3 * MIB + 512
    assert found.after_forward_bytes - found.static_bytes == 2 * MIB + 512
    assert found.exact_bytes is not None
    assert found.exact_bytes <= found.peak_bytes
    again = CpuDevice().read_memory(lambda _: None)
    assert again.static_bytes - found.static_bytes == 2 * MIB + 512
    assert again.after_forward_bytes == 0


def test_releases_are_rounded_as_allocations_are() -> None:
    assert [rounded(size) for size in (1, 512, 513, -1, -513, 0)] == [512, 512, 1024, -512, -1024, 0]


OLDER_BLOCK = """
import torch
from calibrate.worker.device import CpuDevice

held = [torch.ones(4 * 2**20, dtype=torch.uint8)]

def step(_):
    held.clear()
    torch.empty(2**20, dtype=torch.uint8)

found = CpuDevice().read_memory(step)
print(found.peak_bytes - found.static_bytes)
"""


@pytest.mark.process
def test_what_was_there_before_counts_to_the_end() -> None:
    """The profiler does not tell of the release of a block that is older than itself.

    In a process of its own, as a burst has: where tests were profiled before, it may know the block's address.
    """
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", OLDER_BLOCK], cwd=root, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) == MIB


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_device("cpu").device.kind == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_device("auto").remark == ""
    assert open_device("auto").device.kind == "cpu"
    monkeypatch.setattr(torch.cuda, "init", lambda: FakeCuda(error=OLD_DRIVER).init())
    with pytest.raises(BadValue, match="use --device cpu"):
        open_device("cuda")


def test_auto_says_why_a_card_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver shows a card, and torch cannot use it."""
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    monkeypatch.setattr(torch.cuda, "init", lambda: FakeCuda(error=OLD_DRIVER).init())
    found = open_device("auto")
    assert found.device.kind == "cpu"
    assert "torch cannot use the GPU" in found.remark
    assert "too old" in found.remark
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=FakeNvmlError("no driver")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_device("auto").remark == ""


def test_a_card_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_layer, "CudaDevice", lambda: cuda())
    assert open_device("auto").device.kind == "cuda"
    assert open_device("cuda").device.kind == "cuda"


def test_the_cpu_itself() -> None:
    device = CpuDevice()
    device.configure(True)
    device.settle()
    device.synchronize()
    assert device.facts().signature.startswith("cpu: ")
    assert device.clock() == (None, ())
    assert device.available_bytes() > MIB
    begin = device.mark()
    assert device.seconds(begin, begin + 0.5) == 0.5
