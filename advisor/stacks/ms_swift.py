"""ms-swift: transformers' step, whose head sees only tokens that are scored, or what follows the first of them.

Which tokens are scored is a matter of the data: all of a text, the answers of a chat. So memory is that of a batch in
which all are, and its lower end that of one in which hardly any is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.decoders.stack import LossInputs, Proof, Stack
from advisor.libraries import version_text
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy, slice_rows
from advisor.tape.tape import Tape

FEWEST = 2
"""Tokens that the head sees where the last one alone is scored: the one before it, by which it is predicted, and it."""


@dataclass(frozen=True)
class MsSwift(Stack):
    """The libraries' step, with the head on a part of the tokens."""

    picks: bool = False
    """Whether a mask picks the tokens, as it does for a micro-batch of one row; else all after the first label."""
    fewest: bool = False
    """Whether hardly any token is scored."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return f"ms-swift {version_text(self.libraries.code_version)}, {super().name}"

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """As the libraries; which tokens its head sees was read."""
        found = super().proof(m, recipe)
        return found._replace(read=(*found.read, "which tokens its head sees: at most all, at least two of a row"))

    def shaped(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Stack:
        """How the tokens are picked.

        Source: ms-swift 4.6.0, trainers/mixin.py, prepare_logits_to_keep.
        """
        return self if self.picks == (batch == 1) else replace(self, picks=batch == 1)

    @property
    def scoring_fewest(self) -> Stack | None:
        """The same where hardly any token is scored."""
        return replace(self, fewest=True)

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """Head and loss of the tokens that are seen.

        Source: ms-swift 4.6.0, trainers/mixin.py, get_use_logits_to_keep (on wherever the model's forward takes
        `logits_to_keep`, as all of transformers 5 do) and trainers/seq2seq_trainer.py, compute_loss; transformers 5.19,
        models/llama/modeling_llama.py, LlamaForCausalLM.forward, `hidden_states[:, slice_indices, :]`.
        Ignores: what Liger's loss is given, which is all tokens here.
        """
        rows = FEWEST if self.fewest else given.hidden.shape[1]
        if self.picks:
            return super().loss(t, given._replace(hidden=_picked(t, given.hidden, rows)))
        if not self.fewest:
            return super().loss(t, given)
        last = slice_rows(t, given.hidden, rows)
        if not t.autocast or last.dtype == t.autocast:  # else the head's cast makes one of it
            last = copy(t, last, last.shape)
        return super().loss(t, given._replace(hidden=last))


def _picked(t: Tape, x: Tensor, rows: int) -> Tensor:
    """x[:, mask] of x (1, S, H) with so many rows in the mask: a copy, which keeps the mask.

    Backward adds to zeros; a trace with a dispatch mode does so in a second tensor, PyTorch itself in place. Ignores:
    the sorted indices of CUDA's kernel, 24 bytes a row.
    """
    shape, dtype = x.shape, x.dtype
    picked = (shape[0], rows, shape[2])
    mask = t.empty((shape[1],), "bool")
    t.kernel("gather", dtype, 0, 2 * prod(picked) * ITEM_BYTES[dtype])

    def backward(g: Tensor) -> tuple[Tensor]:
        zeros = t.empty(shape, dtype)
        t.kernel("gather", dtype, 0, zeros.bytes + 2 * g.bytes)
        return (t.empty(shape, dtype) if t.device == "cpu" else zeros,)

    return t.op((x,), picked, dtype, backward, (mask,))
