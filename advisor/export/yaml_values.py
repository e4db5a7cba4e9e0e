"""What the trainers' YAML files have in common: how values are written, and what a recipe becomes in them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from advisor.optimizers import optimizer_row
from advisor.parameters.modules import parameter_count
from advisor.parameters.targets import attention_names, spelled_targets
from advisor.rates import learning_rate
from advisor.specs import ModelSpec, Recipe, Workload

Value = str | int | float | bool | list[str] | list[dict[str, str]] | dict[str, bool]


def flat_yaml(values: Mapping[str, Value]) -> str:
    """Flat YAML: a JSON value is a YAML value."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


def whole(value: float) -> int | float:
    """A whole number without its decimal point."""
    return int(value) if value == int(value) else value


def rate_of(model: ModelSpec, recipe: Recipe) -> float:
    """The learning rate to start from."""
    return learning_rate(recipe.method, parameter_count(model)).value


def half_dtype(recipe: Recipe, bf16: bool) -> str:
    """The dtype of mixed precision: 'bf16' or 'fp16'."""
    return "bf16" if bf16 and recipe.base_dtype != "float16" else "fp16"


def targets_of(model: ModelSpec, recipe: Recipe) -> list[str]:
    """The names of the modules that get adapters, as peft takes them."""
    return list(attention_names(model) if recipe.target_modules == ("attention",) else spelled_targets(model, recipe))


def unsaid(*pairs: tuple[bool, str]) -> str:
    """A line for each setting that the file has no key for."""
    return "".join(f"# not configurable here: {text}\n" for missing, text in pairs if missing)


def training_arguments(model: ModelSpec, recipe: Recipe, workload: Workload) -> dict[str, Value]:
    """Keys that TRL and LLaMA-Factory take from transformers' TrainingArguments."""
    return {
        "output_dir": "out",
        "num_train_epochs": whole(workload.epochs),
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "learning_rate": rate_of(model, recipe),
        "optim": optimizer_row(recipe.optimizer).transformers_name,
    }
