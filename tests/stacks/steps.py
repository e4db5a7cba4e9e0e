"""Steps of tiny models whose recipes switch kernels on."""

from __future__ import annotations

from typing import Any

from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.decoders.stack import Stack
from advisor.recipes import build_recipe
from advisor.specs import GpuSpec, ModelSpec, Recipe, Workload
from advisor.stacks import stack_for
from tests.fakes import card


def recipe_of(method: Any, *kernels: str, **knobs: Any) -> Recipe:
    return build_recipe(method, {"gradient_checkpointing": False, "rank": 4, "kernels": kernels, **knobs})


def stack_of(recipe: Recipe, gpu: GpuSpec | None = None) -> Stack:
    return stack_for(recipe, gpu or card(24), Workload())


def step(m: ModelSpec, recipe: Recipe, batch: int = 2, length: int = 256) -> StepMemory:
    return predict_step_memory(m, recipe, batch, length, "cuda", stack_of(recipe))


def kept(m: ModelSpec, recipe: Recipe) -> int:
    return step(m, recipe).after_forward_bytes
