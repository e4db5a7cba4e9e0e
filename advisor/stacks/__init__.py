"""Training stacks: one file for each whose code differs from the one that the decoders mirror, and the choice of one.

A stack is a subclass of `decoders.stack.Stack`. Whoever estimates asks `stack_for` and hands the answer to the step;
nothing else asks which stack runs.
"""

from __future__ import annotations

from advisor.decoders.stack import THIS_STACK, Stack
from advisor.specs import Recipe


def stack_for(recipe: Recipe) -> Stack:
    """The stack whose code a recipe runs: no knob of a recipe leaves the mirrored stack yet.

    The other stacks are those of published measurements, which `advisor.validation` hands over by itself.
    """
    return THIS_STACK
