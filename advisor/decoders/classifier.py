"""Scores of whole rows and their loss: a class, or one number, for each row.

Source: transformers 5.23, modeling_layers.py, GenericForSequenceClassification.forward; models/bert, roberta,
modernbert; loss/loss_utils.py, ForSequenceClassificationLoss. Locals live as long as they do there.
"""

from __future__ import annotations

from math import prod

from advisor.architectures.classifiers import classifier_of
from advisor.blocks import ITEM_BYTES
from advisor.decoders.adapters import linear
from advisor.decoders.embeddings import one_token
from advisor.decoders.linear import Linear
from advisor.decoders.loss import masked_loss
from advisor.decoders.step_inputs import unpadded
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast, dropout, unary
from advisor.tape.tape import Tape


class Pooler:
    """A linear layer and a tanh before the scores (BERT, RoBERTa)."""

    __slots__ = ("dense",)

    def __init__(self, dense: Linear) -> None:
        self.dense = dense

    def __call__(self, t: Tape, x: Tensor) -> Tensor:
        """x (B, H) -> (B, H)."""
        t.label("head transform")
        return unary(t, linear(t, x, self.dense), "output")

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return self.dense.trained


def scores(t: Tape, m: ModelSpec, hidden: Tensor, head: Linear, transform: object) -> Tensor:
    """Hidden states (B, S, H) -> scores (B, labels)."""
    if not callable(transform):
        return _scores_of_last(t, linear(t, hidden, head))
    row, drops = classifier_of(model_type=m.architecture), m.residual_dropout > 0
    x = _mean_of_tokens(t, hidden) if m.pools_mean else one_token(t, hidden)
    if row.drops_input and drops:
        x = dropout(t, x)
    x = transform(t, x)
    pooled = dropout(t, x) if drops else x
    return linear(t, pooled, head)


def classification_loss(t: Tape, scored: Tensor) -> Tensor:
    """Scores (B, labels) -> (1,): cross entropy, or of a single score the squared distance from a number."""
    t.label("loss")
    batch, labels = scored.shape
    if labels > 1:
        return masked_loss(t, t.view(scored, (batch, 1, labels)))
    wide = cast(t, scored, "float32")  # the numbers are in fp32
    shape = wide.shape
    t.kernel("reduce", "float32", 0, 2 * wide.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", "float32", 0, 3 * wide_bytes)
        return (t.empty(shape, "float32"),)

    wide_bytes = wide.bytes
    return t.op((wide,), (1,), "float32", backward, (wide,))


def _scores_of_last(t: Tape, logits: Tensor) -> Tensor:
    """`logits[arange(B), last]` of logits (B, S, labels), where `last` is each row's last token that is no padding."""
    batch, length, labels = logits.shape
    seen = [t.empty((batch, length), "bool")]
    mask = t.empty((batch, length), "int32")
    seen.clear()
    indices = t.empty((length,), "int32")
    product = [t.empty((batch, length), "int32")]
    last = t.empty((batch,), "int64")
    product.clear()
    for moved in (9 * batch * length, 5 * batch * length, indices.bytes, 2 * mask.bytes + indices.bytes, mask.bytes):
        t.kernel("elementwise", "int32", 0, moved)
    rows = t.empty((batch,), "int64")
    t.kernel("elementwise", "int64", 0, rows.bytes)
    return _picked(t, logits, (batch, labels), (rows, last))


def _picked(t: Tape, x: Tensor, picked: tuple[int, int], indices: tuple[Tensor, Tensor]) -> Tensor:
    """One vector of each row of x; its backward writes into zeros, on a CPU with a dispatch mode into a second one."""
    shape, dtype = x.shape, x.dtype
    moved = 2 * prod(picked) * ITEM_BYTES[dtype] + sum(one.bytes for one in indices)
    t.kernel("gather", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        zeros = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, zeros.bytes)
        t.kernel("gather", dtype, 0, moved)
        return (t.empty(shape, dtype) if t.device == "cpu" else zeros,)

    return t.op((x,), picked, dtype, backward, indices)


def _mean_of_tokens(t: Tape, hidden: Tensor) -> Tensor:
    """`(hidden * mask).sum(1) / mask.sum(1)` of hidden states (B, S, H): (B, H).

    The mask counts as one of bools, which it is where no row is padded.
    """
    batch, length, width = hidden.shape
    shape, dtype = hidden.shape, hidden.dtype
    mask = t.empty((batch, length), "bool")
    t.kernel("elementwise", "bool", 0, mask.bytes)
    masked = [unpadded(t, hidden, mask)]
    sums = batch * width * ITEM_BYTES[dtype]
    t.kernel("reduce", dtype, 0, masked[0].bytes + sums)
    total = t.op((masked.pop(),), (batch, width), dtype, lambda g: (Tensor(shape, g.dtype, g.buffer),))
    counts = t.empty((batch, 1), "int64")
    t.kernel("reduce", "int64", 0, mask.bytes + counts.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 2 * sums + counts_bytes)
        return (t.empty((batch, width), dtype),)

    counts_bytes = counts.bytes
    t.kernel("elementwise", dtype, 0, 2 * sums + counts_bytes)
    return t.op((total,), (batch, width), dtype, backward, (counts,))
