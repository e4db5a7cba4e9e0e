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
from advisor.costs.moments import loaded_bytes
from advisor.errors import InputError
from advisor.export import STARTERS, Target, accelerate, skypilot, slurm
from advisor.export.run import Run, TrainingFile
from advisor.specs import CAUSAL, ModelSpec, Placement, TracedModel, Workload


class Export(Protocol):
    """What the module of a trainer offers."""

    def write(self, run: Run) -> TrainingFile:
        """The file that trains as `run` says. Raises InputError where the trainer cannot."""


def export_of(trainer: str) -> Export | None:
    """The export of a trainer, None where it has none."""
    name = f"advisor.export.{trainer.replace('-', '_')}"
    return None if find_spec(name) is None else cast(Export, import_module(name))


def training_file(advice: Advice, row: Candidate, target: Target = "auto", folder: str = "") -> TrainingFile:
    """The file that runs `row` in `folder`, for `target`; for a trainer without an export the script, which says so.

    Raises InputError for what is not trained on each next token, for which there is none yet, and for what the target
    cannot run.
    """
    run = _run_of(advice, row, folder)._replace(by_accelerate=target == "accelerate")
    starts = target in ("auto", *STARTERS)
    trainer = advice.trainer.name if starts else {"python": "transformers"}.get(target, target)
    if target == "slurm":
        run = run._replace(port=slurm.PORT)
        return slurm.wrap(run, _trainers_file(run, trainer, advice.trainer.name))
    if target == "skypilot":
        data = run.data.model_copy(update={"path": _within(run.data.path)})
        run = run._replace(model_id=_within(run.model_id), data=data)
        return skypilot.wrap(run, _trainers_file(run, trainer, advice.trainer.name), advice.gpu)
    written = _trainers_file(run, trainer, advice.trainer.name)._replace(machines=run.placement.nodes)
    return accelerate.lead(written) if target == "accelerate" else written


def _run_of(advice: Advice, row: Candidate, folder: str) -> Run:
    """What `row` trains. Raises InputError for what no file says yet."""
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
    return run_of(advice, row, advice.workload, folder)


def _trainers_file(run: Run, trainer: str, estimated: str) -> TrainingFile:
    """The file for `trainer`, with a note where it is not the one that was estimated."""
    export = export_of(trainer)
    if export is None:
        trainer, export = "transformers", cast(Export, import_module("advisor.export.transformers"))
        note = f"Written for transformers, with the same knobs: there is no export for {estimated} yet."
    else:
        own = f"the estimate is of {estimated}'s step; --trainer {trainer} has its own"
        note = f"Written for {trainer}, with the same knobs: {own}."
    _check_spread(run, trainer)
    written = export.write(run)
    return written if trainer == estimated else written._replace(text=f"# {note}\n{written.text}", caution=note)


def run_of(advice: Advice, plan: Plan, workload: Workload, folder: str = "") -> Run:
    """A plan of an answer as a run whose files stand in `folder`."""
    assert isinstance(advice.model, ModelSpec)
    data = advice.data_file or DataFile()
    at = plan.placement or Placement()
    spread = plan.recipe.is_quantized and at.loads_on_host
    return Run(
        _seen_from(folder, advice.model_id) if os.path.exists(advice.model_id) else advice.model_id,
        advice.model,
        plan.recipe,
        workload,
        data.model_copy(update={"path": _seen_from(folder, data.path)}),
        advice.gpu.gpus,
        advice.gpu.bf16,
        at,
        loads_on_host=spread and loaded_bytes(advice.model, plan.recipe) > advice.gpu.memory_bytes,
    )


def _check_spread(run: Run, trainer: str) -> None:
    """Raises InputError for a quantized base that cannot be loaded so that cards share it out."""
    if run.loads_on_host and trainer != "transformers":
        raise InputError(f"{trainer} loads the whole 4-bit base on each card first, which is too small: --write python")


def _seen_from(folder: str, path: str) -> str:
    """A path of the current folder, as a file in `folder` has to name it."""
    path = os.path.expanduser(path)
    return path if os.path.abspath(folder) == os.getcwd() else os.path.abspath(path)


def _within(path: str) -> str:
    """A path that is copied as it is called: one that leads out of the folder, made absolute."""
    leads_out = os.path.normpath(path).startswith(os.pardir) and os.path.exists(path)
    return os.path.abspath(path) if leads_out else path
