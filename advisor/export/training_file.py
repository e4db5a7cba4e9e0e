"""What to run, in the form that the assumed trainer reads: a script, or a configuration file.

A trainer's export is the module of the same name in this package, with FILE_NAME and `write`: see `Export`. A trainer
without one gets the script for transformers.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from advisor.answer import Advice, Candidate
from advisor.specs import ModelSpec, Recipe, TracedModel, Trainer, Workload


class Export(Protocol):
    """What the module of a trainer offers."""

    FILE_NAME: str
    """The name that the text expects."""

    def write(
        self, model_id: str, model: ModelSpec, recipe: Recipe, workload: Workload, *, gpus: int, bf16: bool
    ) -> str:
        """The text of a file that trains as `recipe` says on rows {"text": ...} of train.jsonl."""


def export_of(trainer: Trainer) -> Export | None:
    """The export of a trainer, None where it has none."""
    name = f"advisor.export.{trainer}"
    return None if find_spec(name) is None else cast(Export, import_module(name))


def file_name(trainer: Trainer) -> str:
    """The name that the text of `training_file` expects."""
    export = export_of(trainer)
    return "train.py" if export is None else export.FILE_NAME


def training_file(advice: Advice, row: Candidate) -> str:
    """The text of the file that runs `row`; for a trainer without an export the transformers script, which says so."""
    if isinstance(advice.model, TracedModel):
        return (
            f"# No script yet for a traced model: load it with\n# "
            f"{advice.model.kind}.from_pretrained({advice.model_id!r}) and set the knobs above.\n"
        )
    trainer, gpus, bf16 = advice.trainer.name, advice.gpu.gpus, advice.gpu.bf16
    export = export_of(trainer)
    if export is not None:
        return export.write(advice.model_id, advice.model, row.recipe, advice.workload, gpus=gpus, bf16=bf16)
    from advisor.export.peft_snippet import peft_snippet

    script = peft_snippet(advice.model_id, advice.model, row.recipe, advice.workload, gpus=gpus, bf16=bf16)
    if trainer == "transformers":
        return script
    return f"# Written for transformers, with the same knobs: there is no export for {trainer} yet.\n{script}"
