"""The loss: full logits as transformers computes them, or in tiles as TRL and Liger do."""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.tape.graph import Tensor
from advisor.tape.layout import alias
from advisor.tape.ops import cast
from advisor.tape.tape import Tape

TILE_TOKENS = 4096
TILE_VOCABULARY = 32_768


def log_softmax_loss(t: Tape, logits: Tensor, upcasts: bool = True) -> Tensor:
    """Cross entropy of logits (B, S, V): upcast to fp32, log-softmax (kept), negative log likelihood.

    Source: transformers/loss/loss_utils.py, ForCausalLMLoss; 12 bytes a logit at the peak of backward. Without
    `upcasts` the loss works in the logits' own dtype, 6 bytes a logit in 16 bits, unless autocast is on: it runs cross
    entropy in fp32 (PyTorch 2.13, aten/src/ATen/autocast_mode.h).
    """
    rows = logits.shape
    dtype = "float32" if upcasts or t.autocast else logits.dtype
    upcast = cast(t, logits, dtype)
    batch, length = rows[0], rows[1]
    padded_labels = t.empty((batch, length + 1), "int64")
    labels = t.empty((batch, length), "int64")
    for moved in (padded_labels.bytes, 2 * labels.bytes, 2 * labels.bytes):  # filled, copied into, cut and copied
        t.kernel("elementwise", "int64", 0, moved)
    loss = _cross_entropy(t, upcast, labels)
    del padded_labels
    return loss


def masked_loss(t: Tape, logits: Tensor, made: bool = False, upcasts: bool = False) -> Tensor:
    """Cross entropy of logits (B, S, V) with labels as they come, in the logits' own dtype unless autocast is on.

    `made`: the labels are made for it; `upcasts`: to fp32 in any case.

    Every token counts as masked: those whose label is -100 are computed and left out of the mean alike.
    Source: transformers 5.23, models/bert/modeling_bert.py, BertForMaskedLM.forward; loss/loss_utils.py,
    ForMaskedLMLoss.
    """
    scores = cast(t, logits, "float32" if t.autocast or upcasts else logits.dtype)
    shape = logits.shape[:2]
    return _cross_entropy(t, scores, t.empty(shape, "int64") if made else Tensor(shape, "int64"))


def _cross_entropy(t: Tape, scores: Tensor, labels: Tensor) -> Tensor:
    """`F.cross_entropy` of scores (B, S, V) in their dtype: log-softmax, which is kept, negative log likelihood."""
    rows, dtype = scores.shape, scores.dtype
    # Too early: the real loss makes it only in nll_loss_forward, as below. No peak of 5,920 steps depends on this one,
    # but in 30 of them it decides between two equally high moments, and so how the peak is split into terms.
    total_weight = t.empty((1,), dtype)

    def log_softmax_backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("reduce", dtype, 0, 3 * g.bytes)
        return (t.empty(rows, dtype),)

    t.kernel("reduce", dtype, 0, 2 * scores.bytes)
    log_probabilities = t.op((scores,), rows, dtype, log_softmax_backward, keep_output=True)

    def nll_backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(rows, dtype)
        t.kernel("elementwise", dtype, 0, out.bytes)
        t.kernel("gather", dtype, 0, picked)
        return (out,)

    picked = labels.bytes + labels.count * ITEM_BYTES[dtype]
    t.kernel("reduce", dtype, 0, picked)
    total_weight = t.empty((1,), dtype)
    return t.op((log_probabilities,), (1,), dtype, nll_backward, (log_probabilities, labels, total_weight))


def shifted(t: Tape, logits: Tensor) -> Tensor:
    """`logits[..., :-1, :].contiguous()`; backward copies the gradient into a full tensor of zeros.

    Source: transformers 4.38 and 4.45, models/llama/modeling_llama.py, LlamaForCausalLM.forward; 4.48,
    loss/loss_utils.py, ForCausalLMLoss.
    """
    shape, dtype = logits.shape, logits.dtype
    batch, length, vocabulary = shape
    t.kernel("elementwise", dtype, 0, 2 * logits.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        full = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, full.bytes + 2 * g.bytes)
        return (full,)

    return t.op((logits,), (batch, length - 1, vocabulary), dtype, backward)


def scored_states(t: Tape, hidden: Tensor) -> Tensor:
    """`hidden[:, :-1][mask]`: the states (N, H) of all tokens that have a successor, copied.

    Source: trl 1.16, trainer/utils.py, add_fused_lm_head. Nothing is masked here: every label counts.
    """
    batch, length, width = hidden.shape
    shape, dtype = hidden.shape, hidden.dtype
    cut = alias(t, (hidden,), lambda g: (t.empty(shape, g.dtype),))
    rows = batch * (length - 1)
    places = [t.empty((rows,), "int64") for _ in range(2)]

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 3 * g.bytes)
        return (t.empty((batch, length - 1, width), dtype),)

    t.kernel("elementwise", dtype, 0, 2 * rows * width * ITEM_BYTES[dtype])
    return t.op((cut,), (rows, width), dtype, backward, tuple(places))


def chunked_loss(t: Tape, hidden: Tensor, head: Tensor, bias: Tensor | None, one_tile: bool) -> Tensor:
    """Head and cross entropy of hidden states (B, S, H) in tiles of 4,096 tokens and 32,768 logits, on CUDA.

    Full logits never exist: forward folds each tile into running sums, backward recomputes it and adds up the
    gradients in fp32. Multipliers and soft caps of the logits run inside the kernel. `one_tile`: at most 4,096 tokens.
    Source: trl 1.16, trl/kernels/chunked_logprob.py, ChunkedLogProbFunction.
    Ignores: rows of padding and of prompts, whose labels TRL leaves out.
    """
    x = scored_states(t, hidden)
    vocabulary, width = head.shape
    rows, dtype = x.shape[0], x.dtype
    compute = t.autocast or dtype
    tile_rows = rows if one_tile else TILE_TOKENS
    counted = hidden.count // width  # with the last token of each row: a row of one token costs something too
    moved = ITEM_BYTES[compute] * (counted * (width + vocabulary) + vocabulary * width)
    needs = [one.needs_grad if one is not None else False for one in (x, head, bias)]

    def head_part(left: int) -> Tensor:
        """A tile's part of the head, cast, where so many rows of it are left."""
        return t.empty((min(left, TILE_VOCABULARY), width), compute)

    def tiles() -> list[Tensor]:
        """What a pass over the tiles works in: the tile, and parts of states and head where they need a cast."""
        made = [t.empty((tile_rows, TILE_VOCABULARY), compute)]
        if dtype != compute:
            made.append(t.empty((tile_rows, width), compute))
        if head.dtype != compute:
            made.append(head_part(vocabulary))
        t.matmul(compute, counted, vocabulary, width, moved)
        t.kernel("reduce", compute, 0, counted * vocabulary * ITEM_BYTES[compute])
        return made

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        shapes = [
            one.shape if one is not None and needed else None
            for one, needed in zip((x_like, head, bias), needs, strict=True)
        ]
        sums = [None if shape is None else t.empty(shape, "float32") for shape in shapes]
        scratch = tiles()
        if head.dtype != compute and (vocabulary > TILE_VOCABULARY or not one_tile):
            others = max(vocabulary - TILE_VOCABULARY, 0) or vocabulary
            scratch[-1] = head_part(others)  # made while its name still holds the part before
            del scratch[-1]
            scratch.append(head_part(vocabulary % TILE_VOCABULARY or TILE_VOCABULARY))  # the last one
        t.kernel("elementwise", compute, 0, 2 * counted * vocabulary * ITEM_BYTES[compute])
        if sums[0] is not None:
            t.matmul(compute, counted, width, vocabulary, moved)
        if sums[1] is not None:
            t.matmul(compute, vocabulary, width, counted, moved)
        out = [None if one is None else cast(t, one, d) for one, d in zip(sums, dtypes, strict=True)]
        scratch.clear()
        return tuple(out)

    x_like = Tensor(x.shape, dtype)
    dtypes = (dtype, head.dtype, bias.dtype if bias is not None else "")
    targets = t.empty((rows,), "int64")
    running = [t.empty((rows,), "float32") for _ in range(7)]
    scratch = tiles()
    kept = (x, targets, t.empty((rows,), "float32"), t.empty((rows,), "float32"))
    running.clear()
    scratch.clear()
    inputs = (x, head) if bias is None else (x, head, bias)
    return t.op(inputs, (1,), "float32", backward, kept)
