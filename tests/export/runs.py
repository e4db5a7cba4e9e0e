"""Jobs run by a module of these tests in one process of its own, which imports torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def ran(module: str, jobs: Mapping[Any, Mapping[str, Any]], folder: Path) -> dict[Any, dict[str, Any]]:
    """What `module` prints for each job, a line of JSON each, under the job's key."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(list(jobs.values())))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # a process that it starts elsewhere finds the same modules
    process = subprocess.run(
        [sys.executable, "-m", module, str(path)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return dict(zip(jobs, map(json.loads, process.stdout.splitlines()), strict=True))
