"""The command that starts a training, as the first lines of an exported file say it."""

from __future__ import annotations

from advisor.specs import Recipe

ALLOCATOR = "PYTORCH_ALLOC_CONF=expandable_segments:True"


def run_line(command: str, recipe: Recipe) -> str:
    """A comment with the command, and before it the environment that the recipe asks for."""
    return f"# run: {ALLOCATOR} {command}" if recipe.expandable_segments else f"# run: {command}"
