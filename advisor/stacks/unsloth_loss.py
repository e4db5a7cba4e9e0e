"""Unsloth's losses by version: which one runs, how many rows it takes at once, and what it makes.

Since 2026.10 head and cross entropy are one function that makes the gradient in forward, by chunks of rows over the
whole vocabulary or, where the head is frozen, by tiles of rows and vocabulary. Before, they were one compiled function
over a split of the rows: in 2025.8 of 1 GiB, in 2025.11 of half the memory that was free. Before that, cut cross
entropy ran, and up to 1,024 tokens full logits.
Sources: unsloth_zoo 2026.10.9, fused_losses/fused_linear.py (fused_linear_rows, _ce_impl, _tiled_forward);
2025.11.6 and 2025.8.9, fused_losses/cross_entropy_loss.py (get_chunk_size); unsloth 2025.3.19, models/llama.py,
CausalLM_fast_forward.
Ignores: prompts and padding, whose rows have no label and are left out; the last of each row is.
"""

from __future__ import annotations

from math import ceil, log2
from typing import Literal, NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.decoders.stack import LossInputs, full_logits
from advisor.tape.graph import LOGITS, Tensor
from advisor.tape.ops import cast
from advisor.tape.tape import Tape
from advisor.units import GIB

LossKind = Literal["plain", "full", "cut", "split", "chunked", "tiled"]

TILE_ROWS, TILE_COLUMNS = 4096, 16_384
SMALL_CARD_BYTES = round(24.5 * GIB)
"""Cards of at most this size take tiles for any number of rows."""
LEAST_TILED_VOCABULARY = 32_768
FULL_UP_TO_TOKENS = 1024
"""Up to so many tokens the version before 2025.8 took full logits."""


class LossForm(NamedTuple):
    """Which loss runs, and on how many rows at once; 0 for all."""

    kind: LossKind = "plain"
    rows: int = 0


def chunk_rows(rows: int, hidden: int, vocabulary: int, logit_bytes: int, budget_bytes: int = 2 * GIB) -> int:
    """Rows of a chunk of 2026.10: a power of two from rows * H / V, at least what starves no product, at most 4,096.

    `budget_bytes` is the smaller of 2 GiB and half the memory free at the first loss; where less is free, chunks are
    smaller than said here. Source: fused_linear_rows.
    """
    least = min(max(_power_below(512 * 151_936 / vocabulary), 512), 4096)
    found = min(max(_power_below(rows * hidden / vocabulary), least), 4096)
    return max(1, min(found, max(2, budget_bytes // (vocabulary * logit_bytes)), rows))


def _power_below(number: float) -> int:
    """The largest power of two that is at most `number`, which is at least 1 here or counts as it."""
    return 1 << int(log2(max(number, 1)))


def split_count(tokens: int, vocabulary: int, target_bytes: float) -> int:
    """Into how many parts 2025's loss splits the rows: multiples of four, or one. Source: get_chunk_size."""
    return max(4 * round(tokens * vocabulary * 4 / target_bytes / 4), 1)


def fixed_form(scored: int, hidden: int, vocabulary: int, frozen: bool, small: bool, ampere: bool) -> LossForm:
    """The form that 2026.10 takes.

    `small`: the card has at most 24.5 GiB; `ampere`: compute capability 8.0 or later. Others than these take chunks.
    """
    if frozen and ampere and vocabulary > LEAST_TILED_VOCABULARY and (small or scored >= TILE_ROWS):
        return LossForm("tiled", TILE_ROWS if scored > TILE_ROWS else 0)
    rows = chunk_rows(scored, hidden, vocabulary, 4)
    return LossForm("chunked", rows if rows < scored else 0)


def split_form(tokens: int, vocabulary: int, target_bytes: float) -> LossForm:
    """The form of 2025.8 and 2025.11."""
    parts = split_count(tokens, vocabulary, target_bytes)
    return LossForm("split", ceil(tokens / parts) if parts > 1 else 0)


def fixed_loss(t: Tape, given: LossInputs, form: LossForm) -> Tensor:
    """Head and cross entropy whose gradients are made in forward, and once more in backward when they are scaled."""
    t.label("loss")
    hidden, weight = given.hidden, given.head.weight
    batch, length, width = hidden.shape
    scored, vocabulary = batch * (length - 1), weight.shape[0]
    compute = t.autocast or weight.dtype
    labels, places = t.empty((batch, length), "int64"), t.empty((scored,), "int64")
    needs = [one.needs_grad and t.grad_enabled for one in (hidden, weight)]
    kept = [t.empty(one.shape, one.dtype) for one, needed in zip((hidden, weight), needs, strict=True) if needed]
    log_probabilities = t.empty((scored,), "float32")
    cast_head = cast(t, Tensor(weight.shape, weight.dtype), compute)
    rows = form.rows or scored
    wide = TILE_COLUMNS if form.kind == "tiled" else -(-vocabulary // 8) * 8
    scratch = [t.empty((rows, wide), "float32", LOGITS)]
    scratch += _beside(t, form, rows, scored, vocabulary, width, compute)
    _note_work(t, compute, batch * length, vocabulary, width, 1 + sum(needs))
    scratch.clear()
    del cast_head, labels, places, log_probabilities
    shapes = [(one.shape, one.dtype) for one in kept]

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        made = iter([t.empty(*one) for one in shapes])
        for shape, dtype in shapes:
            t.kernel("elementwise", dtype, 0, 2 * Tensor(shape, dtype).bytes)
        return tuple(next(made) if needed else None for needed in needs)

    return t.op((hidden, weight), (1,), "float32", backward, tuple(kept))


def _beside(t: Tape, form: LossForm, rows: int, scored: int, vocabulary: int, width: int, compute: str) -> list[Tensor]:
    """What a chunk or a row of tiles holds beside its logits at its highest.

    Names of one chunk live until the next binds them: of several, tiles have states twice, and chunks the fp32
    gradient of the states, which a single chunk has beside its cast. Labels are picked for each.
    """
    parts, several = ceil(vocabulary / TILE_COLUMNS), form.rows > 0
    states, gradient = ((rows, width), compute), ((rows, width), "float32")
    numbers = ((rows,), "float32")
    if form.kind == "tiled":
        held = [*[states] * (1 + several), gradient, numbers, ((scored,), "float32"), ((8, parts, rows), "float32")]
    else:
        held = [states, gradient, gradient if several else states, numbers]
    return [t.empty(shape, dtype) for shape, dtype in [*held, ((rows,), "int64")]]


def _note_work(t: Tape, dtype: str, tokens: int, vocabulary: int, width: int, products: int) -> None:
    """The products with the head, and what is read and written between them; no logit is made twice."""
    moved = ITEM_BYTES[dtype] * (tokens * width + vocabulary * width) + 4 * tokens * vocabulary
    for index in range(products):
        m, n, k = ((tokens, vocabulary, width), (tokens, width, vocabulary), (vocabulary, width, tokens))[index]
        t.matmul(dtype, m, n, k, moved)
    t.kernel("reduce", dtype, 0, 4 * tokens * vocabulary)
    if products > 1:
        t.kernel("elementwise", dtype, 0, 6 * tokens * vocabulary)


def split_loss(t: Tape, given: LossInputs, form: LossForm) -> Tensor:
    """2025's loss: of each split the logits, and their gradient by `torch.func.grad_and_value`, as if not compiled.

    The split's logits in 16 bits and in fp32, their log-softmax and its gradient twice: what the compiler keeps of
    that is not known, so this is the most. The gradient is kept for backward, which hands it on as it is.
    """
    t.label("loss")
    hidden, weight = given.hidden, given.head.weight
    batch, length, width = hidden.shape
    tokens, vocabulary, dtype = batch * length, weight.shape[0], weight.dtype
    needs = [one.needs_grad and t.grad_enabled for one in (hidden, weight)]
    kept: list[Tensor] = [
        t.empty(one.shape, one.dtype) for one, needed in zip((hidden, weight), needs, strict=True) if needed
    ]
    rows = form.rows or tokens
    scratch = [t.empty((rows, vocabulary), dtype, LOGITS)]
    scratch += [t.empty((rows, vocabulary), "float32", LOGITS) for _ in range(3)]
    scratch.append(t.empty((rows, width), dtype))
    if weight.needs_grad:
        scratch.append(t.empty(weight.shape, dtype))
    _note_work(t, dtype, tokens, vocabulary, width, 1 + sum(needs))
    scratch.clear()
    shapes = [(one.shape, one.dtype) for one in kept]
    held = [one.buffer for one in kept]

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        made = iter([Tensor(*one, buffer) for one, buffer in zip(shapes, held, strict=True)])
        held.clear()
        return tuple(next(made) if needed else None for needed in needs)

    return t.op((hidden, weight), (1,), "float32", backward, tuple(kept))


def cut_loss(t: Tape, given: LossInputs) -> Tensor:
    """Cut cross entropy: no logits; keeps the states, a log-sum-exp a row and a mean a word, and multiplies again.

    Source: cut-cross-entropy 25.1.1, cce.py, cce_backward.py; the head is frozen, or its gradient is in 16 bits.
    """
    t.label("loss")
    hidden, weight = given.hidden, given.head.weight
    batch, length, width = hidden.shape
    tokens, vocabulary = batch * length, weight.shape[0]
    needs = [one.needs_grad for one in (hidden, weight)]
    shapes = [(one.shape, one.dtype) for one in (hidden, weight)]
    compute = t.autocast or weight.dtype
    targets = t.empty((batch, length), "int64")
    kept = (hidden, targets, t.empty((tokens,), "float32"), t.empty((vocabulary,), "float32"))
    _note_work(t, compute, tokens, vocabulary, width, 1)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        made = tuple(t.empty(*one) if needed else None for one, needed in zip(shapes, needs, strict=True))
        _note_work(t, compute, tokens, vocabulary, width, 1 + sum(needs))
        return made

    return t.op((hidden, weight), (1,), "float32", backward, kept)


def full_loss(t: Tape, given: LossInputs, in_place: bool) -> Tensor:
    """Logits of all rows in 16 bits, which one kernel keeps; their gradient is a new tensor, or written over them.

    They are an output of the model, of which accelerate makes a copy in fp32 under autocast.
    Sources: unsloth 2026.10.9 and 2025.3.19 (in place), kernels/cross_entropy_loss.py, Fast_CrossEntropyLoss;
    accelerate, utils/operations.py, ConvertOutputsToFp32.
    """
    logits = full_logits(t, given)
    shape, dtype = logits.shape, logits.dtype
    batch, length, vocabulary = shape
    chunks = ceil(vocabulary / 65_536)
    labels, losses = t.empty((batch, length), "int64"), t.empty((batch, length), "float32")
    sums = t.empty((batch, length, chunks), "float32")
    t.kernel("reduce", dtype, 0, logits.bytes)
    held = [logits.buffer]

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 2 * Tensor(shape, dtype).bytes)
        before = held.pop()
        return (Tensor(shape, dtype, before) if in_place else t.empty(shape, dtype),)

    out = t.op((logits,), (1,), "float32", backward, (logits, sums, labels))
    del losses
    if t.autocast:
        copy = t.empty(shape, "float32", LOGITS)
        t.kernel("elementwise", "float32", 0, 3 * logits.bytes)
        del copy
    return out
