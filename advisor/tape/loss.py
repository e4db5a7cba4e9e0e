"""The loss: full logits as transformers computes them, or in tiles as TRL and Liger do."""

from __future__ import annotations

from advisor.tape.graph import ITEM_BYTES, Tensor
from advisor.tape.ops import cast
from advisor.tape.tape import Tape

TILE_TOKENS = 4096
TILE_VOCABULARY = 32_768


def log_softmax_loss(t: Tape, logits: Tensor) -> Tensor:
    """Cross entropy of logits (B, S, V): upcast to fp32, log-softmax (kept), negative log likelihood.

    Source: transformers/loss/loss_utils.py, ForCausalLMLoss; 12 bytes a logit at the peak of backward.
    """
    rows, dtype = logits.shape, "float32"
    upcast = cast(t, logits, dtype)
    batch, length = rows[0], rows[1]
    padded_labels = t.empty((batch, length + 1), "int64")
    labels = t.empty((batch, length), "int64")
    total_weight = t.empty((1,), dtype)

    def log_softmax_backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("reduce", dtype, 0, 3 * g.bytes)
        return (t.empty(rows, dtype),)

    t.kernel("reduce", dtype, 0, 2 * upcast.bytes)
    log_probabilities = t.op((upcast,), rows, dtype, log_softmax_backward, keep_output=True)

    def nll_backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(rows, dtype)
        t.kernel("elementwise", dtype, 0, out.bytes)
        return (out,)

    t.kernel("reduce", dtype, 0, batch * length * ITEM_BYTES[dtype])
    total_weight = t.empty((1,), dtype)
    loss = t.op((log_probabilities,), (1,), dtype, nll_backward, (log_probabilities, labels, total_weight))
    del padded_labels
    return loss


def chunked_loss(t: Tape, hidden: Tensor, head: Tensor, tile_tokens: int) -> Tensor:
    """Head and cross entropy of hidden states (B, S, H) in tiles of `tile_tokens` x 32,768 logits.

    Gradients are made tile by tile in the forward, in fp32, and kept until backward scales them: full logits never
    exist. Source: trl 1.16, trl/kernels/chunked_logprob.py (read, not traced: it needs Triton).
    Ignores: the output multipliers and soft caps of some models, which run inside a tile.
    """
    vocabulary, width = head.shape
    dtype = t.autocast or hidden.dtype
    tile = t.empty((tile_tokens, min(vocabulary, TILE_VOCABULARY)), dtype)
    tokens = hidden.count // width
    moved = ITEM_BYTES[dtype] * (tokens * (width + vocabulary) + vocabulary * width)
    t.matmul(dtype, tokens, vocabulary, width, moved)
    shapes = [(x.shape, x.dtype) if x.needs_grad else None for x in (hidden, head)]
    gradients = []
    for index, found in enumerate(shapes):
        if found is not None:
            gradients.append(t.empty(found[0], "float32"))
            if index == 0:
                t.matmul(dtype, tokens, width, vocabulary, moved)
            else:
                t.matmul(dtype, vocabulary, width, tokens, moved)
    del tile

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        out: list[Tensor | None] = []
        for found in shapes:
            if found is None:
                out.append(None)
                continue
            made = t.empty(*found)
            t.kernel("elementwise", "float32", 0, 3 * made.bytes)
            out.append(made)
        return tuple(out)

    return t.op((hidden, head), (1,), "float32", backward, tuple(gradients))
