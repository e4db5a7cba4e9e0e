"""A trainer's default that decides whether a method fits, found by estimating the method without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.catalog.trainers import find_trainer
from advisor.errors import InputError
from advisor.recipes import flag
from advisor.rules.context import Context
from advisor.rules.savings import SAVING, switchable
from advisor.rules.wording import DISPLAY, default_of
from advisor.specs import Method, Recipe
from advisor.units import format_gib


def decisive_default(context: Context, methods: Sequence[Method]) -> str:
    """The single default that keeps the first of these methods from fitting, as a clause; '' if none does.

    "trl's default --base-dtype float32 decides that: with --base-dtype bfloat16 LoRA needs 17.9 GiB (...), and fits".
    """
    for method in methods:
        row = context.candidates.get(method)
        if row is None or row.verdict == "fits":
            continue
        for knob, changes in _without_defaults(context, row.least.recipe):
            other = row.least.recipe.model_copy(update=changes)
            try:
                memory = context.beside(row.least, other).memory.needed_bytes
            except InputError:  # what several cards cannot run
                continue
            if memory.high > context.memory_bytes:
                continue
            default = flag(knob, getattr(row.least.recipe, knob))
            instead = " ".join(flag(name, value) for name, value in changes.items())
            return (
                f"{default_of(context)} {default} decides that: with {instead} {DISPLAY[method]} needs "
                f"{format_gib(memory.likely)} GiB (at most {format_gib(memory.high)}), and fits"
            )
    return ""


def _without_defaults(context: Context, recipe: Recipe) -> Iterator[tuple[str, dict[str, object]]]:
    """Each of the trainer's defaults that costs memory, and what saves it; of a full loss kernels that have another."""
    for knob, value in SAVING.items():
        if knob == "base_dtype" and not context.has_bf16:
            if recipe.method == "full":  # fp16 gradients cannot be unscaled
                continue
            value = "float16"
        if knob in context.trainer.knobs and getattr(recipe, knob) != value:
            yield knob, {knob: value}
    if "loss" in context.trainer.knobs and recipe.loss == "full":
        preset = find_trainer(context.trainer.name, context.placement.gpus)
        for one in switchable(preset, context.question, context.model, recipe):
            if one.knob == "kernels":
                yield "loss", {one.knob: one.value}
