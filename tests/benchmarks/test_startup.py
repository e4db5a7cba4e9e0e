"""benchmarks.startup can fail: for a slow command, and for one that crashes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.startup import BAR, Comparison, compare, wall_time_s


def ending_with(monkeypatch: pytest.MonkeyPatch, ratios: Sequence[float]) -> int:
    """The benchmark's exit code where its attempts find these ratios."""
    left: Iterator[float] = iter(ratios)
    monkeypatch.setattr(startup, "compare", lambda *_: Comparison(1.0, next(left)))
    monkeypatch.setattr(sys, "argv", ["startup"])
    return startup.main()


def test_one_good_attempt_is_enough_and_three_bad_ones_are_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending_with(monkeypatch, [BAR]) == 0
    assert ending_with(monkeypatch, [BAR + 1, BAR + 1, BAR - 1]) == 0
    assert ending_with(monkeypatch, [BAR + 1, BAR + 1, BAR + 0.01]) == 1


def test_medians_leave_the_first_run_of_each_out(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = iter([90.0, 80.0, 1.0, 2.0, 3.0, 9.0, 2.0, 3.0])  # baseline and subject take turns
    monkeypatch.setattr(startup, "wall_time_s", lambda command, cache: next(times_s))
    found = compare(["baseline"], ["subject"], repeats=3)
    assert found == (2.0, 3.0)
    assert found.ratio == 1.5


@pytest.mark.process
def test_a_crash_is_not_a_fast_start(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        wall_time_s([sys.executable, "-c", "raise SystemExit(3)"], str(tmp_path))


@pytest.mark.process
def test_runs_on_compiled_files_whatever_the_shell_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    wall_time_s([sys.executable, "-c", "import advisor.errors"], str(tmp_path))
    assert [path.name.split(".")[0] for path in tmp_path.rglob("errors.*.pyc")] == ["errors"]
