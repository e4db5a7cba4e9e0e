"""The choice of a stack: one class of all the kernels that a recipe names."""

from __future__ import annotations

from tests.decoders.tiny import spec
from tests.stacks.steps import recipe_of, stack_of, step


def test_stacks_of_two_kernels_differ_by_all_their_fields() -> None:
    recipe, m = recipe_of("lora", "liger_loss", "fused_lora"), spec("llama")
    short, long = (stack_of(recipe).shaped(m, recipe, 1, length) for length in (512, 65_536))
    assert short != long
    assert step(m, recipe, 1, 512) != step(m, recipe, 1, 4096)
