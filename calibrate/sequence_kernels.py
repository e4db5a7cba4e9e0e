"""What runs layers without attention here: the kernels of packages, or the model's own PyTorch code. Needs no torch.

Source: transformers 5.23, integrations/hub_kernels.py, use_kernel_func_from_hub_with_fallback: each function falls back
alone. A recipe knows one word for all of them, so one missing package counts as all.
"""

from __future__ import annotations

import importlib.util

from advisor.parameters.token_mixers import packages_of
from advisor.specs import ModelSpec, Recipe


def as_run(recipe: Recipe, model: ModelSpec | None, device: str) -> Recipe:
    """The recipe with the sequence kernels that run on `device` ('cpu' or 'cuda'): the packages' need a card."""
    if model is None or not model.mixers:
        return recipe
    packages = device == "cuda" and not missing(model)
    return recipe.model_copy(update={"sequence_kernels": "packages" if packages else "torch"})


def missing(model: ModelSpec) -> list[str]:
    """The packages for its mixers that are not installed."""
    return [name for name in packages_of(model) if importlib.util.find_spec(name) is None]


def note_on(model: ModelSpec | None, recipe: Recipe) -> str:
    """What runs the model's layers without attention, in a line; '' where all have attention."""
    if model is None or not model.mixers:
        return ""
    what = "its packages" if recipe.sequence_kernels == "packages" else "the model's own PyTorch code"
    return f"{model.name}: layers without attention are run by {what} (--sequence-kernels {recipe.sequence_kernels})"
