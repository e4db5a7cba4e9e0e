"""What the trainers' YAML files have in common: how values are written, and what a run becomes in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from textwrap import indent
from typing import Any

from advisor.errors import BadValue
from advisor.export.launch import where
from advisor.export.run import Run, TrainingFile, command_of

NAME = "train.yaml"

_NO_POINT = re.compile(r"^(-?\d+)e")


def yaml_file(
    run: Run,
    install: str,
    command: str,
    notes: str,
    values: Mapping[str, Any],
    beside: tuple[tuple[str, str], ...] = (),
    nested: bool = False,
    allocator: str = "",
) -> TrainingFile:
    """A trainer's file: what to install, the command, notes (whole comment lines), one line a key.

    `nested`: a mapping stands below its key. `allocator`: as `command_of` takes it.
    """
    start, packages = command_of(run, command, allocator), f"{install}{run.sequence_packages}{run.engine_packages}"
    return TrainingFile(
        NAME,
        f"# pip install {packages}\n# run: {start}\n{where(run)}{notes}"
        + (nested_yaml(values) if nested else flat_yaml(values)),
        start,
        beside,
        packages=packages,
    )


def flat_yaml(values: Mapping[str, Any]) -> str:
    """One line a key: a JSON value is a YAML value."""
    return "".join(f"{key}: {_scalar(value)}\n" for key, value in values.items())


def nested_yaml(values: Mapping[str, Any]) -> str:
    """The same, where a mapping stands below its key."""
    lines = (
        f"{key}:\n{indent(nested_yaml(value), '  ')}" if isinstance(value, Mapping) else flat_yaml({key: value})
        for key, value in values.items()
    )
    return "".join(lines)


def _scalar(value: Any) -> str:
    """JSON; 1e-05 gets a decimal point, without which YAML 1.1 reads a text."""
    text = json.dumps(value, ensure_ascii=False)
    return _NO_POINT.sub(r"\1.0e", text) if isinstance(value, float) else text


def whole(value: float) -> int | float:
    """A whole number without its decimal point."""
    return int(value) if value == int(value) else value


def whole_alpha(run: Run, trainer: str) -> int:
    """LoRA's alpha where the format takes whole numbers only. Raises BadValue."""
    if run.recipe.alpha != int(run.recipe.alpha):
        allowed = f"must be a whole number in a file for {trainer}; --write python takes any"
        raise BadValue("--alpha", run.recipe.alpha, allowed)
    return int(run.recipe.alpha)


def refuse_some_layers(run: Run, trainer: str) -> None:
    """Refuse a run that trains only some layers, for a format that has no key for them. Raises BadValue."""
    if run.recipe.trained_layers:
        raise BadValue(
            "--trained-layers",
            run.recipe.trained_layers,
            f"a file for {trainer} has no key for it with this method; --write python has",
        )


def unsaid(*pairs: tuple[bool, str]) -> str:
    """A line for each setting that the file has no key for."""
    return "".join(f"# not configurable here: {text}\n" for missing, text in pairs if missing)


def training_arguments(run: Run, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that TRL and LLaMA-Factory take from transformers' TrainingArguments, with those for the optimizer."""
    return {
        "output_dir": "out",
        "num_train_epochs": whole(run.workload.epochs),
        "per_device_train_batch_size": run.recipe.micro_batch,
        "per_device_eval_batch_size": run.eval_batch,
        "gradient_accumulation_steps": run.recipe.gradient_accumulation,
        "learning_rate": run.learning_rate,
        **optimizer,
        **({"neftune_noise_alpha": run.recipe.neftune} if run.recipe.neftune else {}),
        **({"train_sampling_strategy": "group_by_length"} if run.workload.group_by_length else {}),
    }
