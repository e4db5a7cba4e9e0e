"""What a cold `advise` loads; `benchmarks.startup` says how long that takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.startup import ADVISE, ROOT


@pytest.mark.process
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
