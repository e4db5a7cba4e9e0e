"""How long `advise` takes to start, compared with importing the libraries that it uses.

    python -m benchmarks.startup [--repeats 10] [--attempts 3]

Every run is a fresh process; the two commands alternate, so that other load affects both. Both run on compiled files,
as an installed package does, whatever the shell's settings: PYTHONDONTWRITEBYTECODE is unset and the cache has its own
folder, which the first, discarded run of each command fills. Prints both medians and their ratio. Other load slows down
the longer command more, so it exits with 1 only when every attempt exceeds the limit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BAR = 2.0
IMPORTS = [sys.executable, "-c", "import click, pydantic, rich.console, rich.table"]
# What the installed console script does, with the interpreter of this process.
ADVISE = [
    sys.executable,
    "-c",
    "import sys; from advisor.cli import main; sys.exit(main())",
    "--model",
    "llama-8b",
    "--gpu",
    "24GB",
    "--examples",
    "3000",
]


class Comparison(NamedTuple):
    """Median wall time of two commands, in seconds."""

    baseline_s: float
    subject_s: float

    @property
    def ratio(self) -> float:
        """The subject's time over the baseline's."""
        return self.subject_s / self.baseline_s


def wall_time_s(command: Sequence[str], cache: str) -> float:
    """Wall time of one process that keeps its compiled files in the folder `cache`, in seconds.

    Raises CalledProcessError when it fails: a crash is not a fast start.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def compare(baseline: Sequence[str], subject: Sequence[str], repeats: int) -> Comparison:
    """Medians over `repeats` runs of each command, alternating, after one discarded run of each."""
    times: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(repeats + 1):
            for command, kept in zip((baseline, subject), times, strict=True):
                kept.append(wall_time_s(command, cache))
    return Comparison(*(statistics.median(kept[1:]) for kept in times))


def main() -> int:
    """Print the table; returns 1 when the ratio exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--attempts", type=int, default=3)
    given = parser.parse_args()
    print(f"median of {given.repeats}, Python {sys.version.split()[0]}")
    for _ in range(given.attempts):
        found = compare(IMPORTS, ADVISE, given.repeats)
        print(f"{'import click, pydantic, rich':<30} {found.baseline_s * 1e3:7.0f} ms")
        print(f"{'advise':<30} {found.subject_s * 1e3:7.0f} ms")
        print(f"{'ratio':<30} {found.ratio:7.2f}   (bar: {BAR:g})")
        if found.ratio <= BAR:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
