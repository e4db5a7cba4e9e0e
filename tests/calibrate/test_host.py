from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

pytest.importorskip("psutil")

from calibrate import host


def test_the_processor_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some  CPU @ 3GHz\nmodel name\t: again\n")
    monkeypatch.setattr(host, "CPU_FILE", tmp_path / "cpuinfo")
    assert host.cpu_name() == "Some CPU @ 3GHz"
    monkeypatch.setattr(host, "CPU_FILE", tmp_path / "none")
    monkeypatch.setattr(host.platform, "processor", lambda: " odd  one ")
    assert host.cpu_name() == "odd one"
    monkeypatch.setattr(host.platform, "processor", lambda: "")
    monkeypatch.setattr(host.platform, "machine", lambda: "riscv64")
    assert host.cpu_name() == "riscv64"


def test_a_container_has_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text("3000\n")
    (tmp_path / "current").write_text("1000\n")
    monkeypatch.setattr(host, "LIMIT_FILES", (tmp_path / "none", tmp_path / "max"))
    monkeypatch.setattr(host, "USED_FILES", (tmp_path / "current",))
    assert (host.memory_bytes(), host.available_bytes()) == (3000, 2000)
    (tmp_path / "max").write_text("max\n")
    assert host.available_bytes() > 2**20
    assert host.memory_bytes() > host.available_bytes()


CpuTimes = namedtuple("CpuTimes", "user system idle iowait guest")


class Clock:
    """A machine of two cores on which time passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s = self.own_s = 100.0
        self.all_cores = CpuTimes(50.0, 10.0, 130.0, 10.0, 5.0)
        monkeypatch.setattr(host.time, "perf_counter", lambda: self.wall_s)
        monkeypatch.setattr(host.time, "process_time", lambda: self.own_s)
        monkeypatch.setattr(host.psutil, "cpu_times", lambda: self.all_cores)

    def passes(self, wall_s: float, own_s: float, others_s: float, guests_s: float = 0.0) -> None:
        """`own_s` and `others_s` are seconds of one core; guests count among the others' as Linux counts them."""
        self.wall_s += wall_s
        self.own_s += own_s
        user, system, idle, iowait, guest = self.all_cores
        rest = 2 * wall_s - own_s - others_s
        self.all_cores = CpuTimes(user + own_s + others_s, system, idle + rest / 2, iowait + rest / 2, guest + guests_s)


@pytest.mark.parametrize(
    ("threads", "own_s", "others_s", "guests_s", "share", "others_cores"),
    [
        (1, 0.0, 0.0, 0.0, 0.0, 0.0),
        (1, 10.0, 0.0, 0.0, 1.0, 0.0),
        (1, 6.0, 5.0, 0.0, 0.6, 0.5),
        (2, 15.0, 5.0, 4.0, 0.75, 0.5),
    ],
)
def test_shares_are_those_of_the_time_that_passed(
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    own_s: float,
    others_s: float,
    guests_s: float,
    share: float,
    others_cores: float,
) -> None:
    clock = Clock(monkeypatch)
    watch = host.Watch(threads)
    clock.passes(10.0, own_s, others_s, guests_s)
    assert watch.read() == pytest.approx((share, others_cores))


def test_a_watch_that_is_read_at_once_divides_by_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    assert host.Watch(1).read() == (0.0, 0.0)


def test_load_is_told_where_the_system_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.conditions().load_average is not None
    monkeypatch.delattr(host.os, "getloadavg")
    assert host.conditions().load_average is None
