"""What twelve files that people publish mean: every knob, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.advice.check import check
from advisor.configs.reading import read_config
from advisor.errors import InputError
from tests.configs.public_files import PUBLIC_FILES, PublicFile

OPEN = {"rows": 0, "held_out": 0.0, "evaluations": 0.0, "most_steps": 0, "card": ""}


def written(folder: Path, one: PublicFile) -> str:
    """The path of a file with these facts."""
    text, path = one.facts, folder / one.name
    if path.suffix == ".ipynb":
        cells = [{"cell_type": "code", "source": ["%%capture\n", "!pip install a \\\n", "  b\n", text]}]
        text = json.dumps({"cells": cells, "metadata": {"colab": {"gpuType": one.more["card"]}}})
    path.write_text(text)
    return str(path)


def test_there_are_twelve() -> None:
    assert len({(one.repository, one.path) for one in PUBLIC_FILES}) == 12


@pytest.mark.parametrize("one", PUBLIC_FILES, ids=lambda one: one.name)
def test_every_key_that_matters_is_understood(tmp_path: Path, one: PublicFile) -> None:
    path = written(tmp_path, one)
    read = read_config(path).found
    assert read.knobs == one.knobs
    assert (read.unread, read.other) == ((), ())
    assert {key: getattr(read, key) for key in OPEN} == {**OPEN, **one.more}
    if not one.verdict:
        with pytest.raises(InputError, match="spreads the job by zero3: add --gpus"):
            check(path, "h100")
        return
    assert check(path, "h100").verdict == one.verdict
