from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("psutil")

from calibrate import host


def test_the_processor_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some  CPU @ 3GHz\nmodel name\t: again\n")
    monkeypatch.setattr(host, "CPU_FILE", tmp_path / "cpuinfo")
    assert host.cpu_name() == "Some CPU @ 3GHz"
    monkeypatch.setattr(host, "CPU_FILE", tmp_path / "none")
    assert host.cpu_name() != ""


def test_a_container_has_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text("3000\n")
    (tmp_path / "current").write_text("1000\n")
    monkeypatch.setattr(host, "LIMIT_FILES", (tmp_path / "none", tmp_path / "max"))
    monkeypatch.setattr(host, "USED_FILES", (tmp_path / "current",))
    assert (host.memory_bytes(), host.available_bytes()) == (3000, 2000)
    (tmp_path / "max").write_text("max\n")
    assert host.available_bytes() > 2**20
    assert host.memory_bytes() > host.available_bytes()


def test_an_idle_process_has_no_share_and_a_busy_one_has() -> None:
    watch = host.Watch(1)
    time.sleep(0.2)
    assert watch.read().cpu_share < 0.2
    busy, end_s = host.Watch(1), time.perf_counter() + 0.2
    while time.perf_counter() < end_s:
        pass
    assert busy.read().cpu_share > 0.3
    two = busy.read()
    assert two.others_cores >= 0.0


def test_load_is_told_where_the_system_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.conditions().load_average is not None
    monkeypatch.delattr(host.os, "getloadavg")
    assert host.conditions().load_average is None
