"""Cut cross entropy: head and loss in tiles that never leave the multiprocessor.

Source: cut-cross-entropy 25.1.1, cce.py, cce_lse_forward.py, indexed_dot.py, cce_backward.py. Its tensors are those of
Apple's package; axolotl's fork, which is not on PyPI, adds options that are off.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.blocks import ITEM_BYTES
from advisor.decoders.linear import Linear
from advisor.decoders.stack import LossInputs, Proof, Stack
from advisor.errors import BadValue
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Node, Tensor
from advisor.tape.ops import cast
from advisor.tape.tape import Tape

LOCK_ROWS = 64
"""Columns of hidden states that share a lock. Source: cce_backward.py, nd_locks."""


@dataclass(frozen=True)
class CutCrossEntropy(Stack):
    """The loss of all models; evaluations, too, run it."""

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """To the byte."""
        return super().proof(m, recipe).reading("cut-cross-entropy 25.1.1")

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """Hidden states in 16 bits. Raises BadValue for others, as its backward does."""
        if given.hidden.dtype == "float32":
            raise BadValue(
                "--kernels", "cce", "needs hidden states in 16 bits: --base-dtype bfloat16, and --no-kbit-upcast"
            )
        t.label("loss")
        return cut_loss(t, given.hidden, given.head)


def cut_loss(t: Tape, hidden: Tensor, head: Linear) -> Tensor:
    """Loss of hidden states (B, S, H) without logits: forward keeps one number a row and one a column of them.

    Backward computes the product again for both gradients, (N, H) and, if the head trains, (V, H) in hidden states'
    dtype. Ignores: blocks of the vocabulary that backward skips because their gradients vanish, which saves time;
    what torch.compile fuses in finding the rows that count.
    """
    batch, length, width = hidden.shape
    weight, vocabulary, dtype = head.weight, head.out_features, hidden.dtype
    tokens, rows = batch * length, batch * (length - 1)
    item, trains, like = ITEM_BYTES[dtype], weight.needs_grad, weight.shape
    moved = hidden.bytes + weight.bytes
    found = t.empty((rows, 2), "int64")
    places = t.empty((rows,), "int64")
    t.kernel("reduce", "int64", 0, 8 * tokens + found.bytes + places.bytes)
    del found
    lse, targets = t.empty((rows,), "float32"), t.empty((rows,), "float32")
    means = t.empty((vocabulary,), "float32") if t.grad_enabled else None
    t.matmul(dtype, tokens, vocabulary, width, moved)
    t.kernel("gather", dtype, 0, 2 * hidden.bytes + lse.bytes)
    t.kernel("elementwise", "float32", 0, 3 * lse.bytes)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        order = [t.empty((vocabulary,), "int64"), t.empty((vocabulary,), "int64")]  # sorted means, and their places
        t.kernel("reduce", "float32", 0, 24 * vocabulary)
        order[:] = [t.empty((vocabulary,), "float32")]  # the places in 32 bits
        gx = t.empty((batch, length, width), dtype)
        gw = t.empty(like, dtype) if trains else None
        t.kernel("elementwise", dtype, 0, gx.bytes + (gw.bytes if gw is not None else 0))
        locks = -(-width // LOCK_ROWS)
        held = [t.empty((rows,), "float32"), t.empty((-(-vocabulary // locks), locks), "float32")]
        t.matmul(dtype, tokens, vocabulary, width, moved)
        t.matmul(dtype, tokens, width, vocabulary, moved + 2 * item * tokens * width)
        if gw is not None:
            t.matmul(dtype, vocabulary, width, tokens, moved + 2 * gw.bytes)
        held.clear()
        return gx, cast(t, gw, weight.dtype) if gw is not None else None

    kept = (hidden, lse, places) if means is None else (hidden, lse, places, means)
    out = t.function(t.empty((1,), "float32"), (hidden, weight), backward, kept)
    if isinstance(out.node, Node):
        out.node.context = (places.buffer,)  # in the call's parameters as well, which backward does not free
    del targets
    return out
