"""The machine that a process runs on: its processor, its memory, and what else keeps it busy. Needs no torch."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from calibrate.burst_record import Conditions

CPU_FILE = Path("/proc/cpuinfo")
LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
USED_FILES = (Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"))


def cpu_name() -> str:
    """The processor's model name as Linux reports it, else as Python does."""
    try:
        lines = CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return " ".join((named[0] if named and named[0] else platform.processor() or platform.machine()).split())


def memory_bytes() -> int:
    """The machine's memory, or this container's limit."""
    return min(int(psutil.virtual_memory().total), _number(LIMIT_FILES) or 2**62)


def available_bytes() -> int:
    """Memory that new processes can get without swapping."""
    limit, used = _number(LIMIT_FILES), _number(USED_FILES)
    machine = int(psutil.virtual_memory().available)
    return machine if limit is None or used is None else max(0, min(machine, limit - used))


def _number(files: tuple[Path, ...]) -> int | None:
    for file in files:
        try:
            return int(file.read_text())
        except (OSError, ValueError):  # missing, or "max"
            continue
    return None


def conditions() -> Conditions:
    """How busy the machine is, over the last minute."""
    try:
        return Conditions(load_average=os.getloadavg()[0])
    except (OSError, AttributeError):  # Windows
        return Conditions()


class Share(NamedTuple):
    """The use of the processors over an interval."""

    cpu_share: float
    others_cores: float


class Watch:
    """Measures how much of the processors this process and others have used since it was created."""

    def __init__(self, threads: int) -> None:
        """`threads` is how many cores this process wants."""
        self._threads = threads
        self._begin = self._now()

    def read(self) -> Share:
        """Shares since the beginning."""
        wall, own, busy = (now - then for now, then in zip(self._now(), self._begin, strict=True))
        wall = max(wall, 1e-6)
        return Share(cpu_share=own / wall / self._threads, others_cores=max(0.0, busy - own) / wall)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """(wall time, this process's processor time, everybody's) in seconds."""
        all_cores = psutil.cpu_times()
        idle = all_cores.idle + getattr(all_cores, "iowait", 0.0)
        # Guest time is included in user time.
        guests = getattr(all_cores, "guest", 0.0) + getattr(all_cores, "guest_nice", 0.0)
        return time.perf_counter(), time.process_time(), sum(all_cores) - idle - guests
