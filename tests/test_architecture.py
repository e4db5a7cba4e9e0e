"""The arrows of the design, and that `advise` stays light; each probe is shown to be able to fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("advisor", "calibrate", "profiles")
HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "numpy", "scipy", "huggingface_hub")

LINT_IMPORTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"

LOADED_BY_ADVISE = f"""
import json, sys
{{first}}
from advisor.cli import main
sys.argv = ["advise", "--model", "llama-8b", "--gpu", "24GB", "--examples", "3000"]
try:
    main()
except SystemExit as stop:
    if stop.code:
        raise
print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))), file=sys.stderr)
"""


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml against the packages in `tree`."""
    return subprocess.run([sys.executable, "-c", LINT_IMPORTS], cwd=tree, capture_output=True, text=True, check=False)


def heavy_modules_loaded(first: str = "", path: Path | None = None) -> list[str]:
    """Heavy modules in a process that answered a question, after running the line `first` with `path` in front."""
    search_path = os.pathsep.join([str(p) for p in (path, ROOT) if p])
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY_ADVISE.format(first=first)],
        env=os.environ | {"PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stderr.splitlines()[-1])
    return loaded


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages and their contracts that a test may spoil."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.process
def test_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.process
@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("profiles/__init__.py", "import advisor.errors", "calibrate -> advisor -> profiles"),
        ("advisor/units.py", "import calibrate", "calibrate -> advisor -> profiles"),
        ("advisor/interval.py", "from advisor import specs", "arrows inside advisor point one way"),
        ("advisor/tape/graph.py", "import advisor.tape.tape", "no circles between the modules of a folder"),
        ("advisor/catalog/__init__.py", "import advisor.costs.memory", "arrows inside advisor point one way"),
        ("advisor/advice/search.py", "import rich.console", "only the command line and the renderer talk"),
        ("calibrate/show.py", "import torch", "only calibrate's worker imports torch"),
        ("calibrate/show.py", "from calibrate.worker import tracker", "the worker is imported by nobody else"),
        ("advisor/parameters/modules.py", "def f():\n    import torch.nn", "advisor and profiles never reach torch"),
    ],
)
def test_contracts_can_break(tree: Path, file: str, line: str, contract: str) -> None:
    with (tree / file).open("a") as source:
        source.write(f"\n\n{line}\n")
    done = lint_imports(tree)
    assert done.returncode == 1
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), done.stdout


@pytest.mark.process
def test_advise_loads_nothing_heavy() -> None:
    assert heavy_modules_loaded() == []


@pytest.mark.process
def test_heavy_probe_can_fail(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    assert heavy_modules_loaded("import torch", tmp_path) == ["torch"]
