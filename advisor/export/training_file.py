"""What to run, in the form that a trainer reads: a script, or a configuration file.

A trainer's export is the module of the same name in this package, with `write`: see `Export`. A trainer without one
gets the script for transformers.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from advisor.answer import Advice, Candidate, DataFile, Plan
from advisor.errors import InputError
from advisor.export import Target
from advisor.export.run import Run, TrainingFile
from advisor.specs import CAUSAL, ModelSpec, Placement, TracedModel, Workload


class Export(Protocol):
    """What the module of a trainer offers."""

    def write(self, run: Run) -> TrainingFile:
        """The file that trains as `run` says. Raises InputError where the trainer cannot."""


def export_of(trainer: str) -> Export | None:
    """The export of a trainer, None where it has none."""
    name = f"advisor.export.{trainer}"
    return None if find_spec(name) is None else cast(Export, import_module(name))


def training_file(advice: Advice, row: Candidate, target: Target = "auto", folder: str = "") -> TrainingFile:
    """The file that runs `row` in `folder`, for `target`; for a trainer without an export the script, which says so.

    Raises InputError for what is not trained on each next token, for which there is none yet, and for what the target
    cannot run.
    """
    if isinstance(advice.model, TracedModel) or advice.model.kind != CAUSAL:
        traced = isinstance(advice.model, TracedModel)
        what = "a traced model" if traced else "a model that is not trained on next tokens"
        raise InputError(
            f"no script yet for {what}: load it with {advice.model.kind}.from_pretrained({advice.model_id!r}) "
            f"and set the knobs of the answer"
        )
    if advice.workload.images:
        raise InputError(
            f"no file yet for rows with images: load {advice.model_id} with AutoModelForImageTextToText and its "
            "AutoProcessor, and set the knobs of the answer"
        )
    if not row.recipe.upcast_logits:
        raise InputError("--no-upcast-logits is for a loop of one's own: every trainer's loss upcasts; leave it out")
    run = run_of(advice, row, advice.workload, folder)
    trainer = {"auto": advice.trainer.name, "python": "transformers"}.get(target, target)
    _check_spread(run, trainer)
    export = export_of(trainer)
    if export is not None:
        written = export.write(run)
        if target == "auto" or trainer == advice.trainer.name:
            return written
        note = f"# Written for {trainer}, with the same knobs: the estimate is of {advice.trainer.name}'s step.\n"
        return written._replace(text=note + written.text)
    from advisor.export import transformers

    script = transformers.write(run)
    note = f"# Written for transformers, with the same knobs: there is no export for {trainer} yet.\n"
    return script._replace(text=note + script.text)


def run_of(advice: Advice, plan: Plan, workload: Workload, folder: str = "") -> Run:
    """A plan of an answer as a run whose files stand in `folder`."""
    assert isinstance(advice.model, ModelSpec)
    data = advice.data_file or DataFile()
    return Run(
        _seen_from(folder, advice.model_id) if os.path.exists(advice.model_id) else advice.model_id,
        advice.model,
        plan.recipe,
        workload,
        data.model_copy(update={"path": _seen_from(folder, data.path)}),
        advice.gpu.gpus,
        advice.gpu.bf16,
        plan.placement or Placement(),
    )


def _check_spread(run: Run, trainer: str) -> None:
    """Raises InputError for a job that is spread over cards in a way that no file says yet."""
    at = run.placement
    if at.nodes > 1:
        raise InputError(
            "no file yet for more than one machine: start the one of --nodes 1 on each by accelerate launch"
        )
    if at.copies_model or (trainer == "transformers" and not run.recipe.is_quantized):
        return
    what = f"{at.effective_sharding} with {trainer}" + (" on a 4-bit base" if run.recipe.is_quantized else "")
    raise InputError(
        f"no file yet for {what}: take the one of --sharding ddp, start it by accelerate launch --use_fsdp "
        "--fsdp_version 2, and load as ADV108 says"
    )


def _seen_from(folder: str, path: str) -> str:
    """A path of the current folder, as a file in `folder` has to name it."""
    path = os.path.expanduser(path)
    return path if os.path.abspath(folder) == os.getcwd() else os.path.abspath(path)
