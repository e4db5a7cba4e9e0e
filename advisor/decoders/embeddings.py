"""The loss of embedding models: one vector a text, then every text against all others of the micro-batch.

An encoder's vector is the mean of its tokens, a decoder's that of the last one.

What sentence-transformers' MultipleNegativesRankingLoss computes for pairs, over all texts at once: a pair is two rows.
Source: sentence-transformers 5, models/Pooling.py, Pooling.forward; losses/MultipleNegativesRankingLoss.py.
Ignores: that queries and passages go through the model one after the other; the pooler, which takes no part; scores
beyond one a text, 4 bytes for each pair of texts.
"""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.decoders.loss import masked_loss
from advisor.decoders.shared_experts import divided
from advisor.tape.graph import Tensor
from advisor.tape.ops import batched_matmul, mul, scale, unary
from advisor.tape.tape import Tape


def embedding_loss(t: Tape, hidden: Tensor, causal: bool) -> Tensor:
    """hidden (B, S, H) -> (1,); a `causal` model's last token stands for a text."""
    t.label("loss")
    unit = _normalized(t, one_token(t, hidden) if causal else _mean_of_tokens(t, hidden))
    batch, width = unit.shape
    scores = scale(t, batched_matmul(t, unit, unit, (batch, 1), width))
    return masked_loss(t, t.view(scores, (batch, 1, 1)), made=True)


def one_token(t: Tape, hidden: Tensor) -> Tensor:
    """`hidden[:, -1]` or `hidden[:, 0]`, (B, H): a view; its backward copies into a full tensor of zeros."""
    shape, dtype = hidden.shape, hidden.dtype
    out = Tensor((shape[0], shape[2]), dtype, hidden.buffer)
    if hidden.needs_grad and t.grad_enabled:

        def backward(g: Tensor) -> tuple[Tensor]:
            full = t.empty(shape, dtype)
            for moved in (full.bytes, 2 * g.bytes):
                t.kernel("elementwise", dtype, 0, moved)
            return (full,)

        hollow = t.op((hidden,), (0,), dtype, backward)
        out.node, out.needs_grad = hollow.node, True
    return out


def _mean_of_tokens(t: Tape, hidden: Tensor) -> Tensor:
    """(B, H): the mask is spread over all features, in the dtype of hidden states."""
    batch, length, width = hidden.shape
    shape, dtype = hidden.shape, hidden.dtype
    ones = t.empty((batch, length), "int64")
    wide = t.empty(shape, dtype)
    for moved in (ones.bytes, ones.bytes + wide.bytes):
        t.kernel("elementwise", dtype, 0, moved)
    masked = [mul(t, hidden, wide)]
    sums = batch * width * ITEM_BYTES[dtype]
    t.kernel("reduce", dtype, 0, wide.bytes + sums)
    total = t.op((masked.pop(),), (batch, width), dtype, lambda g: (Tensor(shape, g.dtype, g.buffer),))
    t.kernel("reduce", dtype, 0, wide.bytes + sums)
    counts = t.empty((batch, width), dtype)
    t.kernel("elementwise", dtype, 0, 2 * sums)
    counts = t.empty((batch, width), dtype)
    t.kernel("elementwise", dtype, 0, 3 * sums)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 3 * sums)
        return (t.empty((batch, width), dtype),)

    return t.op((total,), (batch, width), dtype, backward, (counts,))


def _normalized(t: Tape, x: Tensor) -> Tensor:
    """`F.normalize(x, dim=1)` of x (B, H)."""
    shape = x.shape
    dtype = x.dtype
    t.kernel("reduce", dtype, 0, x.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 2 * x_bytes)
        return (t.empty(shape, dtype),)

    x_bytes = x.bytes
    length = t.op((x,), (shape[0], 1), dtype, backward, (x,), keep_output=True)
    return divided(t, x, unary(t, length, "input"))
