"""The code around a decoder's layers that differs between training stacks, as one object passed to the step.

`Stack` is transformers 5.23 with peft 0.21 and bitsandbytes 0.50 in transformers' Trainer, the stack that the decoders
mirror. Another stack (advisor.stacks) is a subclass that overrides what its own code does differently; nothing else in
the tape or the decoders asks which stack runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from advisor.decoders.adapters import linear
from advisor.decoders.ends import head_logits
from advisor.decoders.linear import Linear, LinearCode
from advisor.decoders.loss import chunked_loss, log_softmax_loss
from advisor.decoders.norms import WRITTEN_OUT, NormFunction
from advisor.decoders.rope import Rope
from advisor.specs import ModelSpec, Recipe
from advisor.tape.engine import checkpoint
from advisor.tape.graph import LOGITS, Tensor
from advisor.tape.tape import Tape


class LossInputs(NamedTuple):
    """What head and loss start from."""

    m: ModelSpec
    recipe: Recipe
    hidden: Tensor  # (B, S, H)
    head: Linear
    one_tile: bool  # a chunked loss takes all tokens at once
    held: list[Tensor]
    """What the loop holds until after backward: a stack appends to it."""


@dataclass(frozen=True)
class Stack:
    """Loss, checkpointing, norms, attention's inputs and what the loop holds. Equal stacks record equal programs."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return "transformers 5.23, peft 0.21, bitsandbytes 0.50"

    @property
    def linear(self) -> LinearCode:
        """How a linear layer differs."""
        return LinearCode()

    @property
    def leaf_under_checkpointing(self) -> bool:
        """Whether checkpointing makes the output of a frozen embedding require a gradient."""
        return True

    @property
    def outputs_outlive_step(self) -> bool:
        """Whether the loop still holds outputs and loss, and what they hold, when the next forward pass begins."""
        return False

    @property
    def masks_every_batch(self) -> bool:
        """Whether a batch without padding gets an attention mask too."""
        return False

    def norm(self, kind: str) -> NormFunction | None:
        """The code of a norm of that kind (ModelSpec.norm) with a weight; None for `F.layer_norm` and its relatives."""
        return WRITTEN_OUT.get(kind)

    def checkpoint(self, t: Tape, function: Callable[..., Tensor], x: Tensor, reentrant: bool) -> Tensor:
        """`function(x)`, run again in backward."""
        return checkpoint(t, function, x, reentrant)

    def rope(self, t: Tape, rope: Rope) -> Rope:
        """The rotary tables that a layer works with, from those that were made for all layers."""
        return rope

    def keys_values(self, t: Tape, m: ModelSpec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, KV, S, D) as projected, before RoPE."""
        return k, v

    def cached(self, recipe: Recipe, k: Tensor, v: Tensor) -> list[Tensor]:
        """What the model's outputs hold of a layer's keys and values until after backward."""
        return []

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """Head and loss: (1,)."""
        if given.recipe.loss == "chunked":
            t.label("loss")
            return chunked_loss(t, given.hidden, given.head.weight, given.head.bias, given.one_tile)
        logits = full_logits(t, given)
        return log_softmax_loss(t, logits)


def full_logits(t: Tape, given: LossInputs) -> Tensor:
    """Logits (B, S, V) of all tokens; the loss runs next."""
    logits = head_logits(t, given.m, [linear(t, given.hidden, given.head)])
    t.label("loss")
    if logits.buffer is not None:
        logits.buffer.move_to(LOGITS)
    return logits


THIS_STACK = Stack()
"""The stack that the decoders mirror."""
