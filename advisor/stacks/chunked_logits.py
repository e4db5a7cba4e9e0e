"""Head and cross entropy in chunks whose logits are all kept: autograd runs what was made last first."""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.decoders.linear import Linear
from advisor.tape.graph import LOGITS, SAVED, Tensor
from advisor.tape.tape import Tape


def loss_of_kept_chunks(t: Tape, made: list[Tensor], head: Linear, chunks: int) -> Tensor:
    """Cross entropy (1,) of hidden states (B, S, H), alone in `made`, which is popped.

    `chunks` heads, then each one's logits upcast for its own loss.
    The 16-bit logits of all chunks exist before the first loss, and are gone when the last one is made; of each chunk
    its log-softmax in fp32 is kept. Backward goes through all losses, then through all heads, whose gradients of the
    weight are added up, one beside the sum.
    Ignores: that the last chunk of a row may be shorter; a head with an adapter, which is taken as plain.
    Source: PyTorch, torch/csrc/autograd/engine.cpp, CompareNodeTaskTime; torchtune 0.6.1 (see torchtune.py).
    """
    hidden = made.pop()
    shape, dtype = hidden.shape, hidden.dtype
    vocabulary, width = head.out_features, head.in_features
    rows = hidden.count // width
    weight, piece = head.weight, (*shape[:-1], -(-vocabulary // chunks))  # a chunk of the tokens, by its size
    moved = ITEM_BYTES[dtype] * (rows * (width + vocabulary) + chunks * vocabulary * width)
    logit_bytes, needs = rows * vocabulary * ITEM_BYTES[dtype], (hidden.needs_grad, weight.needs_grad)
    t.label("lm_head")
    t.matmul(dtype, rows, vocabulary, width, moved)
    logits = [t.empty(piece, dtype, LOGITS) for _ in range(chunks)]
    edge, saved = Tensor(shape, dtype, needs_grad=hidden.needs_grad), (hidden,) if needs[1] else ()
    edge.node = hidden.node
    del hidden
    t.label("loss")
    labels = t.empty(shape[:-1], "int64")
    kept: list[Tensor] = []
    for _ in range(chunks):
        upcast = t.empty(piece, "float32")
        kept.append(t.empty(piece, "float32", SAVED))
        del upcast
    t.kernel("elementwise", "float32", 0, 3 * logit_bytes)
    t.kernel("reduce", "float32", 0, 4 * logit_bytes)
    logits.clear()

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        narrow: list[Tensor] = []
        while kept:
            of_picked = t.empty(piece, "float32")
            of_softmax = t.empty(piece, "float32")
            kept.pop()
            del of_picked
            narrow.append(t.empty(piece, dtype, LOGITS))
            del of_softmax
        t.kernel("reduce", "float32", 0, 8 * logit_bytes)
        return _heads_backward(t, narrow, shape, weight, needs, moved)

    inputs = (edge, weight) if needs[1] else (edge,)
    return t.op(inputs, (1,), "float32", lambda g: backward(g)[: len(inputs)], (*saved, labels))


def _heads_backward(
    t: Tape,
    gradients: list[Tensor],
    shape: tuple[int, ...],
    weight: Tensor,
    needs: tuple[bool, bool],
    moved: int,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of hidden states (B, S, H) and weight (V, H) from those of all chunks' logits, which go."""
    dtype, (vocabulary, width) = gradients[0].dtype, weight.shape
    rows, chunks = 1, len(gradients)
    for size in shape[:-1]:
        rows *= size
    parts: list[Tensor] = []
    total: Tensor | None = None
    while gradients:
        if needs[0]:
            parts.append(t.empty((*shape[:-1], -(-width // chunks)), dtype))
        if needs[1]:
            one = t.empty((vocabulary, width), dtype)
            total = total or one
            del one
        gradients.pop()
    for wanted, m_n_k in zip(needs, ((rows, width, vocabulary), (vocabulary, width, rows)), strict=True):
        if wanted:
            t.matmul(dtype, *m_n_k, moved)
    return (t.empty(shape, dtype) if needs[0] else None), total
