"""Run scripts with --smoke in one process, watched: `python -m tests.export.smoke_runs JOBS`, one line of JSON a run.

JOBS is a JSON file: a list of {script, arguments, folder, config, recipe}, and {row, templates} where wanted. The
second of the three steps is recorded, as in calibrate/worker/trainer_step.py, and set against the dry run of the same
shape.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from advisor.specs import Recipe
from calibrate.worker.dryrun import add_static, trace_step
from calibrate.worker.tracker import AllocationTracker


class Watch(TrainerCallback):  # type: ignore[misc]
    """Records every step's loss, and every allocation of the second step, from the moment the batch exists."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.tracker: AllocationTracker | None = None
        self.peak_bytes = 0
        self.shape: tuple[int, ...] = ()
        self.losses: list[float] = []
        self.step = trainer.training_step
        trainer.training_step = self.watched

    def watched(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.trainer.state.global_step == 1:
            self.shape = tuple(inputs["input_ids"].shape)
            self.tracker = AllocationTracker({}, name_modules=False)
            add_static(self.tracker, self.trainer.model, self.trainer.optimizer, inputs)
            self.tracker.__enter__()
            self.tracker.mark("forward")
        loss = self.step(model, inputs, *args, **kwargs)
        self.losses.append(float(loss))
        return loss

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.tracker is not None:
            self.tracker.__exit__(None, None, None)
            self.peak_bytes = max(phase.peak_bytes for phase in self.tracker.timeline.phase_peaks())
            self.tracker = None


@functools.cache
def dry_peak_bytes(config: str, recipe: str, batch: int, seq_len: int) -> int:
    """The dry run's peak for the tiny model."""
    trace = trace_step(json.loads(config), Recipe(**json.loads(recipe)), batch, seq_len)
    return trace.peak_bytes


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One script, from its command line to its saved files."""
    watches: list[Watch] = []
    train = Trainer.train

    def watched(self: Any) -> Any:
        watches.append(Watch(self))
        self.add_callback(watches[-1])
        return train(self)

    printed = io.StringIO()
    sys.argv = [job["script"], "--smoke", "--output-dir", job["folder"], *job["arguments"]]
    Trainer.train = watched
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = runpy.run_path(job["script"], run_name="__main__")
    finally:
        Trainer.train = train
    (watch,) = watches
    config = job["config"] | {"vocab_size": len(made["tokenizer"])}
    return {
        "printed": printed.getvalue(),
        "deprecated": [
            str(one.message)
            for one in caught
            if issubclass(one.category, FutureWarning) and "training_args" in one.filename
        ],
        "steps": made["trainer"].state.global_step,
        "losses_finite": all(map(math.isfinite, watch.losses)),
        "shape": watch.shape,
        "peak_bytes": watch.peak_bytes,
        "dry_peak_bytes": dry_peak_bytes(json.dumps(config), json.dumps(job["recipe"]), *watch.shape),
        "saved": sorted(os.listdir(job["folder"])),
        **rows_of(made),
        "by_template": [by_template(made, template, job["row"]) for template in job.get("templates", ())],
    }


def rows_of(made: dict[str, Any]) -> dict[str, Any]:
    """What the rows end with, what of the first one is learned, and how two rows of different lengths are padded."""
    tokenizer, rows = made["tokenizer"], made["rows"]
    tokenizer.pad_token = tokenizer.eos_token
    short = {name: tokens[-3:] for name, tokens in rows[0].items()}
    batch = made["trainer"].data_collator([rows[0], short])
    learned = [token for token in rows[0]["labels"] if token != -100]
    eos = tokenizer.eos_token_id
    return {
        "rows": len(rows),
        "eval_rows": None if made["eval_rows"] is None else len(made["eval_rows"]),
        "lengths": [len(row["input_ids"]) for row in rows],
        "end_with_eos": all(row["input_ids"][-1] == eos and row["labels"][-1] == eos for row in rows),
        "text": tokenizer.decode(rows[0]["input_ids"]),
        "learned": tokenizer.decode(learned),
        "padded_labels": batch["labels"][-1].tolist(),
        "short_labels": short["labels"],
    }


def by_template(made: dict[str, Any], template: str, row: dict[str, Any]) -> dict[str, Any]:
    """What of a row is learned under another chat template."""
    made["tokenizer"].chat_template = template
    found = made["encode"](row)
    return {
        "learned": made["tokenizer"].decode([token for token in found["labels"] if token != -100]),
        "not_found": found["not_found"],
    }


def main() -> None:
    """Run every job."""
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        print(json.dumps(run(job)), flush=True)


if __name__ == "__main__":
    main()
