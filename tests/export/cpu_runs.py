"""Write jobs with `advise` and run them on the CPU: `python -m tests.export.cpu_runs JOBS`, one line of JSON a run.

JOBS is a JSON file: a list of {target, method, folder, model, data}; `model` is the folder in which a tiny model is
saved before the first run. With {stops} a script is interrupted there, and run again with --resume.
What is written is run as it is, but on the processor in place of a card. The third step is set beside the dry run of
the answer's recipe; in it the kernels of TRL's loss do nothing (see `silent_tiles`).
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from transformers import Trainer, TrainingArguments

from advisor.cli import cli
from calibrate.worker.patches import silent_tiles
from tests.export.watch import Watch, beside_dry_run, watching

QUESTION = "--gpu a100-80gb --micro-batch 2 --batch-size 2 --seq-len 64 --epochs 1"
SCRIPT = "train.py"


def write(job: dict[str, Any]) -> dict[str, Any]:
    """Let `advise` write the job into its folder, and return the recipe that it estimated."""
    trainer = {"trl": "trl"}.get(job["target"], "transformers")
    asked = ["--model", job["model"], "--method", job["method"], "--trainer", trainer, "--data", job["data"]]
    done = CliRunner().invoke(
        cli, [*asked, *QUESTION.split(), "--write", job["target"], "--to", job["folder"], "--json"]
    )
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    (row,) = (one for one in answer["candidates"] if one["recipe"]["method"] == job["method"])
    return dict(row["recipe"])


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One job, from the question to its saved files."""
    recipe = write(job)
    os.chdir(job["folder"])
    if job["target"] == "accelerate":
        return launched(job | {"recipe": recipe})
    if job.get("stops"):
        return stopped_in(*job["stops"])
    watch = by_trl() if job["target"] == "trl" else by_script()
    return seen(watch, job, recipe)


def seen(watch: Watch, job: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """What came of a job that ran in the current folder."""
    config = json.loads((Path(job["model"]) / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("dtype", "architectures")}
    return beside_dry_run(watch, config, recipe) | {
        "rows": len(watch.trainer.train_dataset),
        "saved": sorted(os.listdir("out")),
        "saved_dtypes": saved_dtypes(Path("out")),
    }


def saved_dtypes(folder: Path) -> list[str]:
    """The dtypes in the folder's safetensors file."""
    (path,) = folder.glob("*.safetensors")
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sorted({one["dtype"] for name, one in header.items() if name != "__metadata__"})


@contextlib.contextmanager
def on_the_processor() -> Any:
    """Let every TrainingArguments train on the CPU, whatever cards there are."""
    check = TrainingArguments.__post_init__

    def checked(self: Any) -> None:
        self.use_cpu = True
        check(self)

    TrainingArguments.__post_init__ = checked
    try:
        yield
    finally:
        TrainingArguments.__post_init__ = check


def stopped_in(name: str, call: int) -> dict[str, Any]:
    """What is there after Ctrl-C in a call (1 for the first) of a method of Trainer, and after a run with --resume."""
    method, calls = getattr(Trainer, name), []

    def stopped(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        done = method(self, *args, **kwargs)
        if len(calls) == call:
            raise KeyboardInterrupt
        return done

    setattr(Trainer, name, stopped)
    try:
        by_script()
    except KeyboardInterrupt:
        left = sorted(os.listdir("out"))
    finally:
        setattr(Trainer, name, method)
    watch = by_script("--resume")
    return {"left": left, "steps_again": len(watch.losses), "saved": sorted(os.listdir("out"))}


def by_script(*arguments: str) -> Watch:
    """Run the script as Python would."""
    sys.argv = [SCRIPT, *arguments]
    with watching() as watches, on_the_processor(), contextlib.redirect_stdout(sys.stderr):
        runpy.run_path(SCRIPT, run_name="__main__")
    (watch,) = watches
    return watch


def by_trl() -> Watch:
    """Run the file as `trl sft --config` does."""
    import trl
    from trl.scripts.sft import main as sft
    from trl.scripts.sft import make_parser

    trained = watching(trl.SFTTrainer, silent_tiles(True))
    with trained as watches, on_the_processor(), contextlib.redirect_stdout(sys.stderr):
        sft(*make_parser().parse_args_and_config(["--config", "train.yaml"]))
    (watch,) = watches
    return watch


def launched(job: dict[str, Any]) -> dict[str, Any]:
    """The script started by accelerate's launcher with the file that stands beside it."""
    Path("job.json").write_text(json.dumps(job))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate.yaml"]
    done = subprocess.run(
        [*launcher, "-m", "tests.export.cpu_runs", "--here", "job.json"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run every job; with --here, the script of one that is written already."""
    torch.set_num_threads(1)
    if sys.argv[1] == "--here":
        job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
        print(json.dumps(seen(by_script(), job, job["recipe"])), flush=True)
        return
    from tests.export.trl_runs import save_model

    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    save_model(jobs[0]["model"])
    for job in jobs:
        print(json.dumps(run(job)), flush=True)


if __name__ == "__main__":
    main()
