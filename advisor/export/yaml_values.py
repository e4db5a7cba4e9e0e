"""What the trainers' YAML files have in common: how values are written, and what a recipe becomes in them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from advisor.export.peft_snippet import ADAPTER_RATE, FULL_RATE
from advisor.optimizers import optimizer_row
from advisor.parameters.targets import attention_names, spelt_targets
from advisor.specs import ModelSpec, Recipe, Workload

Value = str | int | float | bool | list[str] | list[dict[str, str]] | dict[str, bool]


def flat_yaml(values: Mapping[str, Value]) -> str:
    """Flat YAML: a JSON value is a YAML value."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


def whole(value: float) -> int | float:
    """A whole number without its decimal point."""
    return int(value) if value == int(value) else value


def rate_of(recipe: Recipe) -> float:
    """A usual learning rate to start from."""
    return float(ADAPTER_RATE if recipe.has_adapters else FULL_RATE)


def half_dtype(recipe: Recipe, bf16: bool) -> str:
    """The dtype of mixed precision: 'bf16' or 'fp16'."""
    return "bf16" if bf16 and recipe.base_dtype != "float16" else "fp16"


def targets_of(model: ModelSpec, recipe: Recipe) -> list[str]:
    """The names of the modules that get adapters, as peft takes them."""
    return list(attention_names(model) if recipe.target_modules == ("attention",) else spelt_targets(model, recipe))


def unsaid(*pairs: tuple[bool, str]) -> str:
    """A line for each setting that the file has no key for."""
    return "".join(f"# no key says: {text}\n" for missing, text in pairs if missing)


def training_arguments(recipe: Recipe, workload: Workload) -> dict[str, Value]:
    """Keys that TRL and LLaMA-Factory take from transformers' TrainingArguments."""
    return {
        "output_dir": "out",
        "num_train_epochs": whole(workload.epochs),
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "learning_rate": rate_of(recipe),
        "optim": optimizer_row(recipe.optimizer).transformers_name,
    }
