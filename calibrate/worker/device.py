"""What a burst asks of a device, for a CPU and for a CUDA card: clocks, timers, memory counters, conditions.

All that differs between the two stands here, so that a burst's own code is one for both, and so that a stand-in for
`torch.cuda` and for NVML reaches every line that a card alone would run.

    time     CUDA: events on the stream, and the wall clock around a synchronized step; CPU: perf_counter
    memory   CUDA: the caching allocator's own counters, and what the driver says about the process
             CPU: allocation events of torch.profiler in a step of its own, each rounded up to 512 bytes as CUDA's
             allocator does, over the tensors that were alive before that step
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
        """What does not change."""

    def available_bytes(self) -> int:
        """Memory that a burst could have."""

    def conditions(self) -> Conditions:
        """How the device fares now."""

    def clock(self) -> tuple[float | None, tuple[str, ...]]:
        """(clock in Hz, why it is held down) now."""

    def configure(self, expandable_segments: bool) -> None:
        """Set up the allocator before anything is allocated."""

    def settle(self) -> None:
        """Give back what is cached and start the counters of peaks anew."""

    def synchronize(self) -> None:
        """Wait until the device is done."""

    def mark(self) -> Any:
        """A moment on the device's own clock."""

    def seconds(self, begin: Any, end: Any) -> float:
        """Time between two marks of a synchronized device."""

    def read_memory(self, step: Step) -> MemoryReading:
        """Run one step in its steady state and say what it needed, with all that ran before on a card."""


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

    def available_bytes(self) -> int:
        """What other programs leave."""
        return host.available_bytes()

    def conditions(self) -> Conditions:
        """The load of the machine."""
        return host.conditions()

    def clock(self) -> tuple[float | None, tuple[str, ...]]:
        """Not known of a CPU: what its cores do changes by the millisecond."""
        return None, ()

    def configure(self, expandable_segments: bool) -> None:
        """A CPU's allocator has no segments."""

    def settle(self) -> None:
        """Drop what Python still holds."""
        gc.collect()

    def synchronize(self) -> None:
        """A CPU is done when the call returns."""

    def mark(self) -> float:
        """The wall clock."""
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        """Their difference."""
        return end - begin

    def read_memory(self, step: Step) -> MemoryReading:
        """One step under the profiler, over what was alive before it."""
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
        """Begins to use the card. Raises BadValue when there is none, or the driver is too old for this torch."""
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

    def available_bytes(self) -> int:
        """What is free, together with what this process holds: a burst's own process would begin with neither."""
        free, total = self._cuda.mem_get_info()
        others = self.conditions().other_bytes
        return int(free) if others is None else int(total) - others

    def conditions(self) -> Conditions:
        """What NVML tells; nothing without it."""
        return self._card.conditions(os.getpid()) if self._card else host.conditions()

    def clock(self) -> tuple[float | None, tuple[str, ...]]:
        """The clock of the multiprocessors, and why it is held down."""
        return (self._card.clock_hz(), self._card.throttled()) if self._card else (None, ())

    def configure(self, expandable_segments: bool) -> None:
        """What PYTORCH_ALLOC_CONF would set."""
        if expandable_segments:
            self._set_allocator("expandable_segments:True")

    def settle(self) -> None:
        """Empty the cache, so that what was needed for loading is not counted as reserved."""
        gc.collect()
        self._cuda.synchronize()
        self._cuda.empty_cache()
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
        """The allocator's counters since `settle`, the driver's word on this process, and one step more."""
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
        """What the driver shows for this process; where it does not know it, what is gone, if nobody else is there."""
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
    """A device, and a line on why it is not the one that one might expect; '' when it is."""

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
            return Opened(CpuDevice(), f"there is a GPU, but torch cannot use it, so this measures the CPU: {error}")
    return Opened(CpuDevice(), "")
