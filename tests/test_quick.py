"""`--quick` holds its tests to what it promises: each way of breaking it fails, or is left out where it is marked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import multiprocessing, os, subprocess, sys, time
import pytest

def test_fine():
    assert "torch" not in sys.modules

def test_asks_for_torch():
    pytest.importorskip("torch")
    raise AssertionError("went on without")

def test_imports_torch():
    import torch.nn

def test_runs_a_process():
    try:
        subprocess.run([sys.executable, "-c", ""])
    except Exception:
        pass

def test_spawns():
    multiprocessing.get_context("spawn").Process(target=print).start()

def test_forks():
    if not os.fork():
        os._exit(0)

def test_sleeps():
    time.sleep(0)

@pytest.mark.process
def test_is_marked_as_a_process():
    raise AssertionError("ran")

@pytest.mark.slow
def test_is_marked_as_slow():
    raise AssertionError("ran")
"""
ENDS = {
    "fine": "PASSED",
    "asks_for_torch": "SKIPPED",
    "imports_torch": "FAILED",
    "runs_a_process": "FAILED",
    "spawns": "FAILED",
    "forks": "FAILED",
    "sleeps": "FAILED",
}


@pytest.mark.process
def test_what_is_not_quick_fails(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("nn = None")  # there to be imported, whatever is installed
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tests.quick"]')
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = . {ROOT}\nmarkers =\n  process\n  slow\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--quick"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("test_some.py::test_")]
    found = {line.partition("::test_")[2].split()[0]: line.split()[1] for line in lines}
    assert found == ENDS, done.stdout
    assert "2 deselected" in done.stdout
