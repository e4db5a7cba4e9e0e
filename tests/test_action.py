"""The GitHub action: its commands as a runner starts them, for a checked repository in the current folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.configs.test_formats import AXOLOTL_FULL, AXOLOTL_QLORA

ROOT = Path(__file__).resolve().parent.parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
INSTALL, CHECK = ACTION["runs"]["steps"]


def start(step: dict[str, Any], folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """A step as `shell: bash` runs it: bash -eo pipefail, its inputs in the environment."""
    inputs = {name: given.get(name, row.get("default", "")) for name, row in ACTION["inputs"].items()}
    inputs["python"] = sys.executable
    contexts = {f"${{{{ inputs.{name} }}}}": value for name, value in inputs.items()}
    contexts["${{ github.action_path }}"] = str(ROOT)
    env = {**os.environ, "PYTHONPATH": str(ROOT), **{key: contexts[value] for key, value in step["env"].items()}}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.process
def test_it_judges_each_file_and_runs_nothing_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "fits.yml").write_text(AXOLOTL_QLORA)
    (tmp_path / "large.yml").write_text(AXOLOTL_FULL)
    (tmp_path / "advisor").mkdir()
    (tmp_path / "advisor" / "__init__.py").write_text("raise SystemExit('the repository was run')\n")
    fits = start(CHECK, tmp_path, files="fits.yml", gpu="a100-80gb", flags="--examples 3000")
    assert fits.returncode == 0, fits.stderr
    assert fits.stdout.startswith("fits.yml (Axolotl YAML): fits.")
    both = start(CHECK, tmp_path, files="fits.yml large.yml", gpu="24GB")
    assert both.returncode == 3, both.stderr
    hostile = start(CHECK, tmp_path, files="fits.yml; touch ran", gpu="$(touch ran)")
    assert hostile.returncode not in (0, 127)
    assert not (tmp_path / "ran").exists()


def test_it_installs_the_version_that_was_named() -> None:
    assert INSTALL["run"] == '$PYTHON -m pip install --quiet "$FOLDER"'
    assert INSTALL["env"]["FOLDER"] == "${{ github.action_path }}"
    for step in (INSTALL, CHECK):
        assert "${{" not in step["run"], "an input in the command would run as code"
