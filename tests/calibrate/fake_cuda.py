"""Stand-ins for `torch.cuda` and `pynvml`: every call that a card alone would see, answered and noted."""

from __future__ import annotations

import os
import time
import types
from typing import Any

GIB = 2**30
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver.\nMore"


class FakeEvent:
    """An event that happens at once."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at_s = 0.0

    def record(self) -> None:
        self.at_s = time.perf_counter()

    def elapsed_time(self, end: FakeEvent) -> float:
        """Milliseconds, as torch has it."""
        return (end.at_s - self.at_s) * 1e3


class FakeCuda:
    """torch.cuda with one card of 8 GiB; `error` is what its driver says instead."""

    Event = FakeEvent

    def __init__(self, error: str = "") -> None:
        self._error = error
        self.calls: list[str] = []
        self.allocated = 3 * GIB

    def init(self) -> None:
        if self._error:
            raise RuntimeError(self._error)

    def device_count(self) -> int:
        return 1

    def get_device_properties(self, index: int) -> Any:
        return types.SimpleNamespace(
            name="NVIDIA Fake 8", total_memory=8 * GIB, major=8, minor=6, multi_processor_count=46, uuid="1234"
        )

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")

    def reset_peak_memory_stats(self) -> None:
        self.calls.append("reset_peak_memory_stats")

    def memory_allocated(self) -> int:
        self.allocated += 1
        return self.allocated

    def max_memory_allocated(self) -> int:
        return 5 * GIB

    def max_memory_reserved(self) -> int:
        return 6 * GIB

    def mem_get_info(self) -> tuple[int, int]:
        return GIB, 8 * GIB


class FakeNvmlError(Exception):
    """pynvml.NVMLError."""


def process(pid: int, gib: float) -> Any:
    return types.SimpleNamespace(pid=pid, usedGpuMemory=int(gib * GIB))


def fake_nvml(**answers: Any) -> Any:
    """The module pynvml for one card; a keyword replaces an answer, by an exception for one that is refused."""
    values: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlDeviceGetHandleByUUID": "card",
        "nvmlDeviceGetHandleByIndex": "first card",
        "nvmlSystemGetDriverVersion": b"580.65",
        "nvmlDeviceGetClockInfo": 1800,
        "nvmlDeviceGetMaxClockInfo": 2100,
        "nvmlDeviceGetDefaultApplicationsClock": 1700,
        "nvmlDeviceGetPowerUsage": 210_000,
        "nvmlDeviceGetPowerManagementLimit": 220_000,
        "nvmlDeviceGetPowerManagementDefaultLimit": 240_000,
        "nvmlDeviceGetTemperature": 61,
        "nvmlDeviceGetCurrentClocksEventReasons": 0x04 | 0x20,
        "nvmlDeviceGetComputeRunningProcesses": [process(os.getpid(), 6.5)],
        "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(free=GIB, total=8 * GIB),
    } | answers
    module: Any = types.ModuleType("pynvml")
    module.NVMLError = FakeNvmlError

    def answering(value: Any) -> Any:
        def answer(*_: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        return answer

    for name, value in values.items():
        if value is not AttributeError:  # a function that this pynvml does not have
            setattr(module, name, answering(value))
    return module
