"""Files of jobs on several cards, for the tests of what starts them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from advisor.answer import DataFile
from advisor.catalog.trainers import find_trainer
from advisor.export.run import Run, TrainingFile
from advisor.export.training_file import export_of
from advisor.specs import Method, Placement, Recipe, Workload
from tests.export.test_configs import recipe_of
from tests.fakes import MODEL


def run_of(trainer: str, at: Placement, method: Method = "lora", **knobs: Any) -> Run:
    """A job on the cards of `at`."""
    recipe: Recipe = recipe_of(trainer, method, **knobs)
    workload = Workload(**find_trainer(trainer).collator())
    return Run("maker/small", MODEL, recipe, workload, DataFile(), at.gpus, True, at)


def file_of(trainer: str, at: Placement, method: Method = "lora", **knobs: Any) -> TrainingFile:
    """The file of `trainer` for it."""
    export = export_of(trainer)
    assert export is not None
    return export.write(run_of(trainer, at, method, **knobs))


def flags_of(file: TrainingFile, command: str) -> list[str]:
    """What stands after `command` in the file's own, which may set variables first."""
    started = re.sub(r"^(\w+=\S+ )+", "", file.command)
    assert started.startswith(f"{command} ")
    return shlex.split(started.removeprefix(command))


def saved(file: TrainingFile, folder: Path) -> None:
    """The file and those beside it, in `folder`."""
    for name, text in (*file.beside, (file.name, file.text)):
        (folder / name).write_text(text)
