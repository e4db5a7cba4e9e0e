"""The tape stands on CPython's reference counting: a step needs the same bytes on every Python that is at hand.

Other versions are found on PATH and among pyenv's; Python 3.14 comes as WebAssembly with the npm package `pyodide`,
which `make interpreters` installs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advisor.page.ask import ask
from tests.tape.step_digests import step_digests

pytestmark = pytest.mark.process
ROOT = Path(__file__).resolve().parents[2]
PYODIDE = ROOT / ".pyodide"
ASKED = (
    {"model": "tinyllama-1.1b", "gpu": "24GB", "examples": "3000"},
    {"model": "llama-3.2-1b", "gpu": "2xrtx4090", "examples": "500", "price_per_hour": "0.7", "packing": "on"},
)
ANSWERS = """
import json, sys
from advisor.page.ask import ask
print(json.dumps([ask(json.dumps(one)) for one in json.load(sys.stdin)]))
"""
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    return json.loads(json.dumps(step_digests()))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which another Python compiles the packages once, and not beside them."""
    return os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}


def printed(command: list[str], env: dict[str, str] | None = None) -> dict[str, Any]:
    """What step_digests.py printed."""
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


def interpreter(version: str) -> str | None:
    """A Python of that version that starts; one of pyenv's names on PATH may not."""
    name = f"python{version}"
    folders = [*map(Path, os.get_exec_path()), *sorted(Path.home().glob(f".pyenv/versions/{version}*/bin"))]
    for found in (folder / name for folder in folders):
        if os.access(found, os.X_OK):
            started = subprocess.run([found, "-c", ""], capture_output=True, timeout=60, check=False)
            if started.returncode == 0:
                return str(found)
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_another_python_records_the_same_steps(version: str, here: dict[str, Any], compiled: dict[str, str]) -> None:
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip(f"Python {version} runs these tests")
    path = interpreter(version)
    if path is None:
        pytest.skip(f"no python{version} on this machine")
    answer = printed([path, "tests/tape/step_digests.py"], compiled)
    assert answer["python"].startswith(f"{version}.")
    assert answer["steps"] == here


@pytest.mark.parametrize("version", VERSIONS)
def test_another_python_answers_with_the_same_bytes(version: str, compiled: dict[str, str]) -> None:
    """Sums and roots that differ in their last digits from one version to another are exact."""
    path = None if version == f"{sys.version_info.major}.{sys.version_info.minor}" else interpreter(version)
    if path is None:
        pytest.skip(f"no other python{version} on this machine")
    env = compiled | {"PYTHONPATH": str(ROOT), "FINETUNE_ADVISOR_DATA": "/nowhere"}
    asked = json.dumps([{"kind": "advise", "flags": flags} for flags in ASKED])
    done = subprocess.run([path, "-c", ANSWERS], input=asked, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [ask(json.dumps(one)) for one in json.loads(asked)]


def test_pyodides_python_records_the_same_steps(here: dict[str, Any]) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    if not (PYODIDE / "node_modules" / "pyodide").is_dir():
        pytest.skip("pyodide is not installed: make interpreters")
    answer = printed([node, "tests/tape/pyodide.mjs", str(PYODIDE), str(ROOT)])
    assert answer["python"].startswith("3.14.")
    assert answer["steps"] == here
