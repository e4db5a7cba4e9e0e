"""What the NVIDIA driver says about a card, through NVML. Needs no torch; any answer may be missing.

Drivers of older and of virtual cards do not answer every query: an unanswered query is None, never an error. Without
the package `nvidia-ml-py`, no card can be queried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.catalog import nvml as catalog_nvml
from calibrate.burst_record import Conditions

MHZ = 1e6
REASONS = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x10: "synchronized with other cards",
    0x20: "temperature",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons for lowered clocks; an idle card and clocks set by a user are not
among them. Source: nvml.h, nvmlClocksEventReason*."""
SM, MEMORY = 1, 2
"""nvmlClockType_t."""


class WatchedCard:
    """One card, queried through NVML."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        """`nvml` is the module pynvml, `handle` its handle of the card."""
        self._nvml, self._handle = nvml, handle

    def driver(self) -> str:
        """Version of the driver; '' when it does not report one."""
        found = self._ask(self._nvml.nvmlSystemGetDriverVersion)
        return found.decode() if isinstance(found, bytes) else found or ""

    def conditions(self, own_pid: int) -> Conditions:
        """The card's conditions now; `own_pid` is not counted among other processes."""
        nvml, card = self._nvml, self._handle
        others = self._others(own_pid)
        return Conditions(
            sm_clock_hz=self.clock_hz(),
            sm_clock_max_hz=self._scaled(MHZ, lambda: nvml.nvmlDeviceGetMaxClockInfo(card, SM)),
            sm_clock_base_hz=self._scaled(MHZ, lambda: nvml.nvmlDeviceGetDefaultApplicationsClock(card, SM)),
            memory_clock_hz=self._scaled(MHZ, lambda: nvml.nvmlDeviceGetClockInfo(card, MEMORY)),
            memory_clock_max_hz=self._scaled(MHZ, lambda: nvml.nvmlDeviceGetMaxClockInfo(card, MEMORY)),
            power_w=self._scaled(1e-3, lambda: nvml.nvmlDeviceGetPowerUsage(card)),
            power_limit_w=self._scaled(1e-3, lambda: nvml.nvmlDeviceGetPowerManagementLimit(card)),
            power_limit_default_w=self._scaled(1e-3, lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(card)),
            temperature_c=self._scaled(1.0, lambda: nvml.nvmlDeviceGetTemperature(card, 0)),
            throttled=self.throttled(),
            other_processes=others[0],
            other_bytes=others[1],
        )

    def clock_hz(self) -> float | None:
        """The clock of the multiprocessors now."""
        return self._scaled(MHZ, lambda: self._nvml.nvmlDeviceGetClockInfo(self._handle, SM))

    def throttled(self) -> tuple[str, ...]:
        """Why the driver lowers the clocks now."""
        ask = getattr(self._nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        ask = ask or getattr(self._nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None)  # its name before 2023
        bits = self._ask(lambda: ask(self._handle)) if ask else None
        return tuple(text for bit, text in REASONS.items() if int(bits or 0) & bit)

    def process_bytes(self, pid: int) -> int | None:
        """Card memory that a process holds; None in a container that hides its process id."""
        for process in self._processes() or ():
            if process.pid == pid and process.usedGpuMemory:
                return int(process.usedGpuMemory)
        return None

    def free_bytes(self) -> int | None:
        """Free memory."""
        found = self._ask(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle))
        return None if found is None else int(found.free)

    def _others(self, own_pid: int) -> tuple[int | None, int | None]:
        """(other processes, memory that they hold). A container may show this process under another process id."""
        found = self._processes()
        if found is None:
            return None, None
        others = [p for p in found if p.pid != own_pid]
        if others and len(others) == len(found):  # one of them is this process, but which one is unknown
            return len(others) - 1, None if len(others) > 1 else 0
        return len(others), sum(int(p.usedGpuMemory or 0) for p in others)

    def _processes(self) -> Any:
        return self._ask(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))

    def _scaled(self, factor: float, question: Callable[[], Any]) -> float | None:
        found = self._ask(question)
        return None if found is None else float(found) * factor

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (self._nvml.NVMLError, AttributeError):  # unanswered, or a function that this pynvml does not have
            return None


def open_card(uuid: str = "") -> WatchedCard | None:
    """The card with this UUID ('GPU-...'), or the first; None without NVML."""
    try:
        nvml = catalog_nvml.nvml_module()
    except ImportError:
        return None
    try:
        return WatchedCard(nvml, catalog_nvml.open_card(nvml, uuid))
    except (nvml.NVMLError, AttributeError):
        return None
