"""Run `trl sft` on files in one process: `python -m tests.export.trl_runs JOBS`, one line of JSON a run.

JOBS is a JSON file: a list of {config, model}; `model` is the folder to save a tiny model in before the first run.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
import trl
from transformers import AutoTokenizer
from trl.scripts.sft import main as sft
from trl.scripts.sft import make_parser

from advisor.export.smoke import IMPORTS, tiny_model
from tests.fakes import MODEL

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

NAMES = "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast"


def save_model(folder: str) -> None:
    """The tiny model of the scripts, with a chat template that marks answers."""
    names: dict[str, Any] = {"model_id": "maker/small"}
    exec(f"{IMPORTS}\n{NAMES}\n{tiny_model(MODEL)}", names)
    with contextlib.redirect_stdout(sys.stderr):
        names["save_tiny_model"](folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def run(config: str) -> dict[str, Any]:
    """What `trl sft --config` trains on, and how far it comes."""
    made: list[Any] = []
    train = trl.SFTTrainer.train

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(self)
        return train(self, *args, **kwargs)

    trl.SFTTrainer.train = watched
    try:
        with contextlib.redirect_stdout(sys.stderr):
            sft(*make_parser().parse_args_and_config(["--config", config]))
    finally:
        trl.SFTTrainer.train = train
    (trainer,) = made
    tokenizer = trainer.processing_class
    rows = list(trainer.train_dataset)
    eos = tokenizer.eos_token_id
    return {
        "steps": trainer.state.global_step,
        "loss_finite": all(math.isfinite(one["loss"]) for one in trainer.state.log_history if "loss" in one),
        "end_with_eos": all(row["input_ids"][-1] == eos and row["labels"][-1] == eos for row in rows),
        "learned": tokenizer.decode([token for token in rows[0]["labels"] if token != -100]),
        "alpha": trainer.model.peft_config["default"].lora_alpha if hasattr(trainer.model, "peft_config") else None,
        "saved": sorted(os.listdir(trainer.args.output_dir)),
    }


def main() -> None:
    """Run every job."""
    torch.set_num_threads(1)
    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    save_model(jobs[0]["model"])
    for job in jobs:
        print(json.dumps(run(job["config"])), flush=True)


if __name__ == "__main__":
    main()
