"""What a burst asks of a device, for a CPU and for a CUDA card: clocks, timers, memory counters, conditions.

All differences between the two are here, so that a burst has one code path for both, and so that a fake `torch.cuda`
and a fake NVML reach every line that otherwise only a card would run.

    time     CUDA: events on the stream, and the wall clock around a synchronized step; CPU: perf_counter
    memory   CUDA: the caching allocator's own counters, and what the driver says about the process
             CPU: allocation events of torch.profiler in a separate step, each rounded up to 512 bytes as CUDA's
             allocator does, plus the tensors that were alive before that step
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from advisor.errors import BadValue
from calibrate import host
from calibrate.burst_record import Conditions, DeviceFacts, DeviceKind
from calibrate.nvml import WatchedCard, open_card
from calibrate.worker.cpu_memory import CpuWatch, MemoryReading, mark_after_forward

NO_CUDA = "torch.cuda sees no GPU here: use --device cpu, or auto"

Step = Callable[[Callable[[], None]], object]
"""One training step; it calls what it is given when the forward pass is over."""


class Device(Protocol):
    """What a burst needs from a device."""

    kind: DeviceKind
    place: str
    """Where tensors are made: torch's name of the device."""

    def facts(self) -> DeviceFacts:
        """The facts that do not change."""

    def count(self) -> int:
        """How many of them there are: cards, or cores of a CPU."""

    def available_bytes(self) -> int:
        """Memory that a burst could have."""

    def conditions(self) -> Conditions:
        """The device's conditions now."""

    def clock(self) -> tuple[float | None, tuple[str, ...]]:
        """(clock in Hz, why it is held down) now."""

    def configure(self, expandable_segments: bool) -> None:
        """Set up the allocator before anything is allocated."""

    def settle(self) -> None:
        """Release cached memory and reset the peak counters."""

    def forget_peaks(self) -> None:
        """Reset the peak counters, and leave the allocator as it is."""

    def synchronize(self) -> None:
        """Wait until the device is done."""

    def mark(self) -> Any:
        """A moment on the device's own clock."""

    def seconds(self, begin: Any, end: Any) -> float:
        """Time between two marks of a synchronized device."""

    def read_memory(self, step: Step) -> MemoryReading:
        """Run one step in its steady state; return what it needed, on a card including everything that ran before."""


class CpuDevice:
    """The processor, with the threads that torch was given."""

    kind: DeviceKind = "cpu"
    place = "cpu"

    def facts(self) -> DeviceFacts:
        """Name, memory and threads."""
        return DeviceFacts(
            kind="cpu",
            name=host.cpu_name(),
            memory_bytes=host.memory_bytes(),
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
        )

    def count(self) -> int:
        """The cores."""
        return os.cpu_count() or 1

    def available_bytes(self) -> int:
        """Memory that other programs leave free."""
        return host.available_bytes()

    def conditions(self) -> Conditions:
        """The load of the machine."""
        return host.conditions()

    def clock(self) -> tuple[float | None, tuple[str, ...]]:
        """Unknown for a CPU: its clocks change every millisecond."""
        return None, ()

    def configure(self, expandable_segments: bool) -> None:
        """A CPU's allocator has no segments."""

    def settle(self) -> None:
        """Drop what Python still holds."""
        gc.collect()

    def forget_peaks(self) -> None:
        """A CPU has no counters."""

    def synchronize(self) -> None:
        """A CPU is done when the call returns."""

    def mark(self) -> float:
        """The wall clock."""
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        """Their difference."""
        return end - begin

    def read_memory(self, step: Step) -> MemoryReading:
        """One step under the profiler, plus what was alive before it."""
        watch = CpuWatch()
        step(mark_after_forward)
        return watch.stop()


class CudaDevice:
    """The first card that torch sees. `cuda` stands for torch.cuda, `place` for its tensors, in tests."""

    kind: DeviceKind = "cuda"

    def __init__(
        self,
        cuda: Any = None,
        place: str = "cuda",
        card: WatchedCard | None = None,
        set_allocator: Callable[[str], object] = torch._C._accelerator_setAllocatorSettings,
    ) -> None:
        """Initialize the card. Raises BadValue when there is none, or the driver is too old for this torch."""
        self.place, self._set_allocator = place, set_allocator
        self._cuda: Any = torch.cuda if cuda is None else cuda
        try:
            self._cuda.init()
            self._properties = self._cuda.get_device_properties(0)
        except (RuntimeError, AssertionError) as error:
            raise BadValue("--device", "cuda", f"{NO_CUDA} ({first_line(error)})") from None
        uuid = getattr(self._properties, "uuid", "")
        self._card = card or open_card(f"GPU-{uuid}" if uuid else "")

    def facts(self) -> DeviceFacts:
        """Name, memory, capability and versions."""
        p = self._properties
        return DeviceFacts(
            kind="cuda",
            name=p.name,
            memory_bytes=int(p.total_memory),
            compute_capability=f"{p.major}.{p.minor}",
            driver=self._card.driver() if self._card else "",
            cuda=str(torch.version.cuda or ""),
            multiprocessors=p.multi_processor_count,
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
        )

    def count(self) -> int:
        """The cards that torch sees."""
        return int(self._cuda.device_count())

    def available_bytes(self) -> int:
        """Free memory plus what this process holds, since a burst's own process starts with nothing."""
        free, total = self._cuda.mem_get_info()
        others = self.conditions().other_bytes
        return int(free) if others is None else int(total) - others

    def conditions(self) -> Conditions:
        """NVML's readings; empty without NVML."""
        return self._card.conditions(os.getpid()) if self._card else host.conditions()

    def clock(self) -> tuple[float | None, tuple[str, ...]]:
        """The clock of the multiprocessors, and why it is held down."""
        return (self._card.clock_hz(), self._card.throttled()) if self._card else (None, ())

    def configure(self, expandable_segments: bool) -> None:
        """What PYTORCH_ALLOC_CONF would set."""
        if expandable_segments:
            self._set_allocator("expandable_segments:True")

    def settle(self) -> None:
        """Empty the cache, so that memory used for loading is not counted as reserved."""
        gc.collect()
        self._cuda.synchronize()
        self._cuda.empty_cache()
        self._cuda.reset_peak_memory_stats()

    def forget_peaks(self) -> None:
        """Those of what is allocated and of what is reserved."""
        self._cuda.reset_peak_memory_stats()

    def synchronize(self) -> None:
        """Wait for the card."""
        self._cuda.synchronize()

    def mark(self) -> Any:
        """An event on the current stream."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """The card's own time between two events."""
        return float(begin.elapsed_time(end)) / 1e3

    def read_memory(self, step: Step) -> MemoryReading:
        """Run one more step; return the counters since `settle` and the driver's figure for this process."""
        static = int(self._cuda.memory_allocated())
        seen: list[int] = []
        step(lambda: seen.append(int(self._cuda.memory_allocated())))
        self._cuda.synchronize()
        return MemoryReading(
            peak_bytes=int(self._cuda.max_memory_allocated()),
            static_bytes=static,
            after_forward_bytes=seen[-1] if seen else 0,
            reserved_bytes=int(self._cuda.max_memory_reserved()),
            device_bytes=self._process_bytes(),
            exact_bytes=None,
        )

    def _process_bytes(self) -> int | None:
        """The driver's figure for this process; without one, all memory in use if nobody else is on the card."""
        own = self._card.process_bytes(os.getpid()) if self._card else None
        if own is not None:
            return own
        free, total = self._cuda.mem_get_info()
        return int(total) - int(free) if self.conditions().other_processes == 0 else None


def first_line(error: BaseException) -> str:
    """The beginning of a message that may be long."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


class Opened(NamedTuple):
    """A device, and a line on why it is not the expected one; '' when it is."""

    device: Device
    remark: str


def open_device(kind: str) -> Opened:
    """The device that --device names: 'cpu', 'cuda', or 'auto' for a card where there is one that torch can use.

    Raises BadValue for 'cuda' without such a card.
    """
    if kind == "cuda":
        return Opened(CudaDevice(), "")
    if kind == "auto" and (torch.cuda.is_available() or open_card() is not None):
        try:
            return Opened(CudaDevice(), "")
        except BadValue as error:
            return Opened(CpuDevice(), f"torch cannot use the GPU, so the CPU is measured instead: {error}")
    return Opened(CpuDevice(), "")
