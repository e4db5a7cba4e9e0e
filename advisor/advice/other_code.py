"""Remedies of other code: older libraries that quantize experts, and trainers whose own step keeps less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from advisor.advice.attempt import Attempt
from advisor.advice.job import Job
from advisor.answer import Change
from advisor.catalog.trainers import DEFAULT_TRAINER
from advisor.recipes import flag
from advisor.rules.savings import SAVING
from advisor.specs import Method, ModelSpec, Trainer

LEANER: tuple[Trainer, ...] = ("unsloth", "axolotl", "trl")
"""Trainers that keep less than the plain step by themselves: fused loss and LoRA, checkpoints in the host's memory and
4-bit experts; fused LoRA; a loss in chunks. What each keeps is estimated."""
LINEAR_EXPERTS: Mapping[str, object] = {
    "stack": ("transformers-4.57",),
    "gradient_checkpointing": True,
    "micro_batch": 1,
}
"""The last release whose experts are linear layers, which bitsandbytes quantizes (parameters/stored.py), and one plan:
a loop over 128 experts takes a third of a second to record for each micro-batch."""
_FURTHER: tuple[Mapping[str, object], ...] = (
    {},
    {"optimizer": SAVING["optimizer"]},
    {"target_modules": SAVING["target_modules"]},
    {"optimizer": SAVING["optimizer"], "target_modules": SAVING["target_modules"]},
)
"""What is changed beside the trainer where its own settings are not enough."""


def other_code(attempt: Attempt, job: Job) -> Iterator[Change]:
    """The older libraries; of the other trainers the first that fits, and the next as long as none surely does."""
    yield from _older_libraries(attempt, job)
    further = _FURTHER
    for trainer in LEANER:
        if trainer == (job.question.trainer or DEFAULT_TRAINER):
            continue
        found = _by(attempt, trainer, further)
        if found is not None:
            yield found
            further = _FURTHER[:1]  # beside one that likely fits only what changes nothing else
            if found.plan is not None and found.plan.verdict == "fits":
                return


def _older_libraries(attempt: Attempt, job: Job) -> Iterator[Change]:
    m, question = job.model, job.question
    fused = isinstance(m, ModelSpec) and m.num_experts and m.experts == "fused"
    if not fused or "stack" in question.fixed or (question.trainer or DEFAULT_TRAINER) != DEFAULT_TRAINER:
        return
    if "qlora" in question.methods:
        settings = {name: value for name, value in LINEAR_EXPERTS.items() if name not in question.fixed}
        found = _first(attempt, settings, ("qlora",))
        if found is not None:
            yield found


def _by(attempt: Attempt, trainer: Trainer, changes: Sequence[Mapping[str, object]]) -> Change | None:
    """The job as another trainer runs it, with the least further change that makes it fit."""
    asked = attempt.asked.question
    methods: tuple[Method, ...] = (asked.method,) if asked.method else ("lora", "qlora")
    for further in changes:
        if not set(further) & set(asked.fixed):
            found = _first(attempt, {"trainer": trainer, **further}, methods)
            if found is not None:
                return found
    return None


def _first(attempt: Attempt, settings: Mapping[str, object], methods: tuple[Method, ...]) -> Change | None:
    """The change to these settings for the first of the methods that then fits."""
    job = attempt.posed(settings)
    for method in methods:
        outcome = attempt.fits(job, method)
        if job is not None and outcome is not None:
            flags = tuple(flag(name, value) for name, value in settings.items())
            return attempt.change(" ".join(flags), job, outcome, flags, knobs=tuple(settings))
    return None
