"""Run scripts with --smoke in one process, watched: `python -m tests.export.smoke_runs JOBS`, one line of JSON a run.

JOBS is a JSON file: a list of {script, arguments, folder, config, recipe}, and {row, templates} where wanted. The
steps are recorded, as in calibrate/worker/trainer_step.py, and the third is set against the dry run of the same shape.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from tests.export.watch import beside_dry_run, watching


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One script, from its command line to its saved files."""
    printed = io.StringIO()
    sys.argv = [job["script"], "--smoke", "--output-dir", job["folder"], *job["arguments"]]
    with watching() as watches, contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = runpy.run_path(job["script"], run_name="__main__")
    (watch,) = watches
    config = job["config"] | {"vocab_size": len(made["tokenizer"])}
    return {
        "printed": printed.getvalue(),
        "deprecated": [
            str(one.message)
            for one in caught
            if issubclass(one.category, FutureWarning) and "training_args" in one.filename
        ],
        **beside_dry_run(watch, config, job["recipe"]),
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
