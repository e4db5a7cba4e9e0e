"""Which linear layers of a vision tower get adapters. peft matches the end of a module's path."""

from __future__ import annotations

from advisor.parameters.targets import attention_names
from advisor.parameters.towers import tower_parts
from advisor.specs import ModelSpec, Recipe


def tower_adapted(m: ModelSpec, recipe: Recipe) -> frozenset[str]:
    """Names of the tower's linear layers that get an adapter: all, or those that a target names the end of.

    `attention` stands for the decoder's names, as an exported file lists them: some towers have layers of those names.
    Where only the last layers have adapters, the tower is taken to have none.
    """
    targets = recipe.target_modules
    if m.vision is None or not (recipe.has_adapters and recipe.train_tower) or recipe.trained_layers:
        return frozenset()
    parts = tower_parts(m.vision)
    names = (*parts.block, *parts.around)
    ends = attention_names(m) if targets == ("attention",) else targets
    return frozenset(n for n in names if targets == ("all-linear",) or n.rpartition(".")[2] in ends)
