"""A job of many steps as transformers' Trainer runs it on a tiny CPU model: rows of random lengths, each step's peak.

The collator pads as the workload says, the sampler is the Trainer's own. The first step is left out: it makes the
optimizer's states.

    python -m calibrate.worker.trainer_job --method lora --steps 60
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

import click
import torch
from transformers import DataCollatorForSeq2Seq, PrinterCallback, TrainerCallback

from advisor.catalog.config_json import model_from_config
from advisor.costs.memory import predict_step_memory
from advisor.costs.micro_batches import MicroBatch, collated
from advisor.specs import METHODS, Method, Recipe, Workload
from calibrate.worker.dryrun import add_static
from calibrate.worker.patches import quiet
from calibrate.worker.tracker import AllocationTracker
from calibrate.worker.trainer_step import CONFIG, preset_recipe, tokenizer, transformers_trainer

JOB = Workload(seq_len=128, mean_seq_len=48)
TINY = CONFIG | {"num_hidden_layers": 1}


class StepPeak(NamedTuple):
    """One step: its micro-batch, and the most bytes that were alive in it, in blocks of 512."""

    batch: MicroBatch
    measured_bytes: int
    predicted_bytes: int

    @property
    def error(self) -> float:
        """Of the prediction, relative to the measured peak."""
        return self.predicted_bytes / self.measured_bytes - 1


def job_peaks(
    recipe: Recipe, workload: Workload = JOB, steps: int = 60, seed: int = 0, config: Mapping[str, Any] = TINY
) -> list[StepPeak]:
    """Train for `steps` and one more, and set the peak of each but the first beside the formula's for its rows."""
    m = model_from_config(config, "tiny", "tiny")
    torch.manual_seed(seed)
    lengths = workload.lengths.sample(Random(seed), (steps + 1) * recipe.micro_batch)
    rows = [{"input_ids": torch.randint(3, config["vocab_size"], (n,)).tolist()} for n in lengths]
    with quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = transformers_trainer(
            config,
            recipe,
            folder,
            [row | {"labels": row["input_ids"], "attention_mask": [1] * len(row["input_ids"])} for row in rows],
            _collator(workload),
            max_steps=steps + 1,
            **({"train_sampling_strategy": "group_by_length"} if workload.group_by_length else {}),
        )
        trainer.remove_callback(PrinterCallback)
        watch = _EveryStep(trainer)
        trainer.add_callback(watch)
        trainer.train()
    found = []
    for found_lengths, measured_bytes in watch.peaks[1:]:
        batch = collated(workload, recipe, found_lengths)
        step = predict_step_memory(m, recipe, batch.rows, batch.tokens, "cpu", padded=batch.padded)
        found.append(StepPeak(batch, measured_bytes, step.peak_bytes))
    return found


def _collator(workload: Workload) -> Any:
    """What the script of `advise` pads rows with."""
    return DataCollatorForSeq2Seq(
        tokenizer(),
        padding="max_length" if workload.padding == "max_length" else True,
        max_length=workload.seq_len if workload.padding == "max_length" else None,
        pad_to_multiple_of=workload.pad_to_multiple_of if workload.pad_to_multiple_of > 1 else None,
    )


class _EveryStep(TrainerCallback):  # type: ignore[misc]
    """Puts a tracker around each optimizer step: the lengths of its rows and its peak."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.peaks: list[tuple[list[int], int]] = []
        self.tracker: AllocationTracker | None = None
        self.lengths: list[int] = []
        step = trainer.training_step

        def watched(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.lengths = inputs["attention_mask"].sum(-1).tolist()
            self.tracker = AllocationTracker({}, name_modules=False)
            add_static(self.tracker, trainer.model, trainer.optimizer, inputs)
            self.tracker.__enter__()
            self.tracker.mark("step")
            return step(model, inputs, *args, **kwargs)

        trainer.training_step = watched

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop watching after the optimizer."""
        assert self.tracker is not None, "a step ended that did not begin"
        self.tracker.__exit__(None, None, None)
        self.peaks.append((self.lengths, max(phase.peak_bytes for phase in self.tracker.timeline.phase_peaks())))
        self.tracker = None


@click.command()
@click.option("--method", type=click.Choice(METHODS), help="default: all of them, one after the other")
@click.option("--steps", type=click.IntRange(1), default=60, show_default=True)
@click.option("--group-by-length", is_flag=True)
@click.option("--pad-to-multiple-of", type=click.IntRange(1), default=1, show_default=True)
def main(method: Method | None, steps: int, group_by_length: bool, pad_to_multiple_of: int) -> None:
    """Predicted and measured peak of every step, at most and at the median."""
    torch.set_num_threads(1)
    workload = JOB.model_copy(update={"group_by_length": group_by_length, "pad_to_multiple_of": pad_to_multiple_of})
    for one in METHODS if method is None else (method,):
        peaks = job_peaks(preset_recipe("transformers", one), workload, steps)
        errors = sorted(abs(peak.error) for peak in peaks)
        click.echo(
            f"{one:6} {len(peaks)} steps of {len({peak.batch for peak in peaks})} shapes: error of the peak "
            f"{errors[len(errors) // 2]:.3%} at the median, {errors[-1]:.3%} at most"
        )


if __name__ == "__main__":
    main()
