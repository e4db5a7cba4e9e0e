"""From the command line to the data folder and back, and what happens when that is disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.advice.advise import advise
from advisor.files.checked import FOLDER_VARIABLE

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = {
    "model_type": "electra",
    "embedding_size": 16,
    "vocab_size": 211,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "data"))
    folder = tmp_path / "tiny-electra"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def calibrate(model: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "calibrate.cli", "--dry-run", "--model", str(model), "--seq-len", "64", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(model: Path) -> list[Path]:
    folder = model.parent / "data" / "traced"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_traced_once_then_answered_without_torch(model: Path) -> None:
    output, errors = (process := calibrate(model, "--method", "full,lora")).communicate()
    assert process.returncode == 0, errors
    assert "2 of 4" not in output
    assert "profile of 4 recipes stored" in errors
    (path,) = stored(model)
    assert path.stat().st_size < 200_000
    answer = advise(str(model), "24GB", 500, seq_len=100)
    assert [(row.method, row.evidence.rung) for row in answer.candidates] == [("full", "trace"), ("lora", "trace")]

    before = path.read_bytes()
    _, errors = calibrate(model, "--method", "lora").communicate()
    assert "for its profile" not in errors  # it is there already
    assert path.read_bytes() == before

    (model / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": 64}))
    output, errors = (process := calibrate(model, "--method", "lora")).communicate()
    assert (process.returncode, path.read_bytes()) == (2, before)
    assert "lora" in output
    assert "--retrace" in errors.splitlines()[-1]
    _, errors = (process := calibrate(model, "--method", "lora", "--retrace")).communicate()
    assert process.returncode == 0, errors
    assert [row.method for row in advise(str(model), "24GB").candidates] == ["lora"]


def test_folder_that_cannot_be_written_leaves_the_answer(model: Path) -> None:
    (model.parent / "data").write_text("a file where the folder should be")
    output, errors = (process := calibrate(model, "--method", "full")).communicate()
    assert process.returncode == 4
    assert "full" in output
    assert errors.splitlines()[-1].startswith("cannot save the profile: ")


def test_interrupt_leaves_nothing_half_written(model: Path) -> None:
    process = calibrate(model)
    assert process.stderr is not None
    for line in process.stderr:
        if "for its profile, 2 of" in line:
            break
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, stored(model)) == (130, [])
    assert errors.splitlines()[-1] == "interrupted"
