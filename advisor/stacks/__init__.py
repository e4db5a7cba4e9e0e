"""Training stacks: one file per stack whose code differs from the mirrored one, and the choice of a stack.

A stack is a subclass of `decoders.stack.Stack`. An estimate calls `stack_for` and passes the result to the step;
nothing else asks which stack runs.
"""

from __future__ import annotations

from advisor.decoders.stack import THIS_STACK, Stack
from advisor.specs import Recipe


def stack_for(recipe: Recipe) -> Stack:
    """The stack whose code a recipe runs: no knob of a recipe leaves the mirrored stack yet.

    The other stacks are those of published measurements, which `advisor.validation` passes to the step directly.
    """
    return THIS_STACK
