"""A cold `advise` takes at most twice as long as importing the libraries it stands on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.startup import ADVISE, BAR, IMPORTS, ROOT, compare, wall_time_s

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


def test_a_crash_is_not_a_fast_start(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        wall_time_s([sys.executable, "-c", "raise SystemExit(3)"], str(tmp_path))


def test_runs_on_compiled_files_whatever_the_shell_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    wall_time_s([sys.executable, "-c", "import advisor.errors"], str(tmp_path))
    assert [path.name.split(".")[0] for path in tmp_path.rglob("errors.*.pyc")] == ["errors"]


def test_a_plain_answer_needs_neither_pydantic_nor_toml() -> None:
    """Building pydantic's schemas takes longer than the answer; the doors that read and write files load it."""
    lines = (
        "import sys",
        "try:",
        "    from advisor.cli import main; main()",
        "finally:",
        "    print(sorted(sys.modules), file=sys.stderr)",
    )
    command = [sys.executable, "-c", "\n".join(lines), *ADVISE[3:]]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    assert "'advisor.render.answer'" in loaded
    for module in ("pydantic", "tomllib", "importlib.metadata", "importlib.resources", "pathlib", "tempfile"):
        assert f"'{module}'" not in loaded, module
