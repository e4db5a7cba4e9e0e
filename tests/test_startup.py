"""A cold `advise` takes at most twice as long as importing the libraries it stands on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.startup import ADVISE, BAR, IMPORTS, compare, wall_time_s

ATTEMPTS = 3
REPEATS = 5


def test_advise_starts_fast() -> None:
    ratios: list[float] = []
    while len(ratios) < ATTEMPTS and min(ratios, default=BAR + 1) > BAR:  # another load can only slow it down
        ratios.append(compare(IMPORTS, ADVISE, REPEATS).ratio)
    assert min(ratios) <= BAR, f"advise over bare imports, {ATTEMPTS} attempts: {ratios}"


def test_a_slow_command_misses_the_bar() -> None:
    nothing = [sys.executable, "-c", "pass"]
    slow = [sys.executable, "-c", "import time; time.sleep(1.5)"]
    assert compare(nothing, slow, repeats=1).ratio > BAR


def test_a_crash_is_not_a_fast_start() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        wall_time_s([sys.executable, "-c", "raise SystemExit(3)"])
