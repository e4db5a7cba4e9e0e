"""A CPU job of rows of random lengths under transformers' own loop: each step's peak against the formula's."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from advisor.costs.micro_batches import worst
from advisor.specs import METHODS, Method
from calibrate.worker.trainer_job import JOB, job_peaks
from calibrate.worker.trainer_step import preset_recipe
from tests.every import EVERY_COMBINATION

METHODS_RUN: tuple[Method, ...] = METHODS if EVERY_COMBINATION else ("full", "qdora")
"""What the others do in a step is in one of the two; all of them take minutes: EVERY_COMBINATION=1."""
STEPS = 60 if EVERY_COMBINATION else 30
TOLERANCE = 0.01


@pytest.mark.parametrize("method", METHODS_RUN)
def test_every_step_of_a_job_has_the_predicted_peak(method: Method) -> None:
    torch.set_num_threads(1)
    recipe = preset_recipe("transformers", method)
    peaks = job_peaks(recipe, steps=STEPS)
    assert len(peaks) == STEPS
    assert len({peak.batch for peak in peaks}) > STEPS / 2
    assert max(abs(peak.error) for peak in peaks) < TOLERANCE
    assert max(peak.batch.tokens for peak in peaks) <= worst(JOB, recipe).tokens


@pytest.mark.parametrize(
    "changes", [{"group_by_length": True}, {"pad_to_multiple_of": 32}, {"padding": "max_length"}], ids=str
)
def test_as_long_as_the_collator_and_the_sampler_make_them(changes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    workload = JOB.model_copy(update=changes)
    recipe = preset_recipe("transformers", "lora", {"gradient_checkpointing": False})
    peaks = job_peaks(recipe, workload, steps=8)
    assert max(abs(peak.error) for peak in peaks) < TOLERANCE
    assert all(peak.batch.tokens % workload.pad_to_multiple_of == 0 for peak in peaks)
