"""Flags of the calibrate commands: the recipe's knobs, under their usual names. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import click

from advisor.catalog.models import find_source
from advisor.catalog.trainers import SWITCHED, find_trainer
from advisor.errors import BadValue, UnknownName
from advisor.knobs import KNOBS, Question, read_question, read_value
from advisor.recipes import build_recipe
from advisor.specs import METHODS, Method, Model, ModelSpec, Recipe
from calibrate.batches import IMAGE_KNOBS, ROW_KNOBS
from calibrate.ranks import PLACEMENT_KNOBS
from calibrate.stacks import installed_stack

DEFAULT_SEQ_LEN = 512
STEP_KNOBS = tuple(
    k
    for k in KNOBS
    if k.home == "recipe" or k.name in ("seq_len", "batch_size", *ROW_KNOBS, *IMAGE_KNOBS, *PLACEMENT_KNOBS)
)

Command = TypeVar("Command", bound=Callable[..., Any])


def recipe_options(command: Command, several: tuple[str, ...] = ()) -> Command:
    """Add a flag for every knob that changes one step; a flag left out is passed as None.

    Those named in `several` may be repeated and are passed as tuples.
    """
    for knob in reversed(STEP_KNOBS):
        if knob.kind == "bool":
            option = click.option(knob.option, knob.name, default=None, help=knob.help)
        elif knob.name in several:
            option = click.option(
                knob.option, knob.name, metavar=knob.metavar, multiple=True, help=f"{knob.help}; repeatable"
            )
        else:
            option = click.option(knob.option, knob.name, metavar=knob.metavar, help=knob.help)
        command = option(command)
    return command


def recipe_of(
    method: str, knobs: Mapping[str, object], trainer: str = "", defaults: Mapping[str, object] | None = None
) -> tuple[Recipe, int]:
    """The recipe and the sequence length (tokens) that the flags ask for.

    Flags left out take what `trainer` sets, then `defaults`, then the defaults of `build_recipe`, and 512 tokens. The
    libraries are the installed ones where --stack names no others.
    Raises UnknownName or BadValue.
    """
    if method not in METHODS:
        raise UnknownName("method", method, (*METHODS, "all"), hint=f"must be all, {', '.join(METHODS)}")
    question = read_question(knobs)
    micro_batch = question.micro_batch or 1
    gpus = question.gpus or 1
    at_once = micro_batch * gpus
    batch_size = question.batch_size or at_once
    if batch_size % at_once:
        what = "--micro-batch" if gpus == 1 else "--gpus times --micro-batch"
        raise BadValue("--batch-size", batch_size, f"must be a multiple of {what}, which is {at_once}")
    fixed = question.recipe_fields | {"gradient_accumulation": batch_size // at_once}
    if question.stack is None and (installed := installed_stack()):
        fixed["stack"] = installed
    recipe = build_recipe(method, fixed, _preset(trainer, method, question), defaults)
    _plain(recipe)
    return recipe, question.seq_len or DEFAULT_SEQ_LEN


def _preset(trainer: str, method: Method, question: Question) -> dict[str, object]:
    """The knobs that `trainer` sets for `method`. Raises UnknownName, and BadValue for a loss that cannot be run."""
    if not trainer:
        return {}
    preset = find_trainer(trainer, question.gpus or 1)
    values = preset.values(method)
    loss = values.get("loss", "full")
    if loss != "full" and question.loss is None and not preset.traced:
        raise BadValue(
            f"loss of {preset.name}",
            loss,
            "a dry run computes transformers' and TRL's loss alone: add --loss full to use the other knobs",
        )
    return {name: value for name, value in values.items() if name not in SWITCHED}


def _plain(recipe: Recipe) -> None:
    """Raise BadValue for what a recipe switches on besides transformers' own code, which alone runs here."""
    for name in SWITCHED:
        value = getattr(recipe, name)
        if value not in ((), "none", False):
            text = "a dry run and a burst run transformers' own code; leave it out"
            raise BadValue(f"--{name.replace('_', '-')}", value, text)


def methods_of(text: str) -> tuple[Method, ...]:
    """The methods that `--method` names, comma-separated; 'all' means every method. Raises UnknownName."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for method in found:
        read_value("method", method)
    return METHODS if "all" in found else cast("tuple[Method, ...]", found)


def config_of(text: str) -> dict[str, Any]:
    """The Hugging Face config of a model given by name, alias, Hub id, config.json or folder.

    Unlike `find_model`, it accepts architectures that the formula does not know: transformers may know them.
    Raises UnknownName, BadConfig or SourceUnavailable.
    """
    return dict(find_source(text).config)


def trained_as(config: Mapping[str, Any], model: Model | None) -> dict[str, Any]:
    """The config of the model as it is trained: of a classifier what names its class, its scores and its padding."""
    if not isinstance(model, ModelSpec) or not model.labels:
        return dict(config)
    named = {"architectures": ["ForSequenceClassification"], "num_labels": model.labels}
    return {"pad_token_id": 0, **{key: value for key, value in config.items() if key != "id2label"}, **named}
