"""What Liger's kernels allocate, keep and overwrite, as operations of the tape.

Source: liger-kernel 0.8.5, liger_kernel/ops, the files that each function names. A kernel in Triton there is one kernel
here, which moves its operands once.
"""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.decoders.linear import Linear, autocast_operand
from advisor.decoders.rope import Rope
from advisor.tape.graph import ManyNode, Output, Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import cast
from advisor.tape.tape import Tape

MULTIPROCESSORS = 188
"""Rows of the sums for a trained norm's gradient: one a multiprocessor, here of the card that has the most of them.

Source: NVIDIA, RTX PRO 6000 Blackwell data sheet (24,064 CUDA cores of 128 a multiprocessor).
"""


def rms_norm(t: Tape, x: Tensor, weight: Tensor, in_place: bool) -> Tensor:
    """RMSNorm (..., H) in one kernel: keeps x and one fp32 number a row; the result has the dtype of x.

    `in_place`: backward writes the gradient of x over that of the result. Source: ops/rms_norm.py.
    """
    shape, dtype, trains, like = x.shape, x.dtype, weight.needs_grad, (weight.shape, weight.dtype)
    out, rstd = t.empty(shape, dtype), t.empty(shape[:-1], "float32")
    aside = weight.bytes + rstd.bytes
    t.kernel("reduce", dtype, 0, 2 * x.bytes + aside)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        sums = t.empty((1 if t.device == "cpu" else MULTIPROCESSORS, shape[-1]), "float32") if trains else None
        gx = Tensor(shape, g.dtype, g.buffer) if in_place else t.empty(shape, g.dtype)
        if not in_place:
            t.kernel("elementwise", dtype, 0, gx.bytes)  # zeros first
        t.kernel("reduce", dtype, 0, 3 * g.bytes + aside)
        if sums is None:
            return gx, None
        total = t.empty(like[0], "float32")
        t.kernel("reduce", "float32", 0, sums.bytes + total.bytes)
        return gx, cast(t, total, like[1])

    return t.function(out, (x, weight), backward, (x, weight, rstd))


def gated(t: Tape, gate: Tensor, up: Tensor) -> Tensor:
    """`activation(gate) * up` in one kernel: keeps both, and backward writes both gradients over them.

    Source: ops/swiglu.py, LigerSiLUMulFunction; ops/geglu.py, LigerGELUMulFunction.
    """
    like = Tensor(gate.shape, gate.dtype)
    t.kernel("elementwise", gate.dtype, 0, 3 * gate.bytes)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        t.kernel("elementwise", like.dtype, 0, 5 * like.bytes)
        return t.overwritten(like, 0), t.overwritten(like, 1)

    return t.function(t.empty(gate.shape, gate.dtype), (gate, up), backward, (gate, up))


def contiguous_halves(t: Tape, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Copies of gate and up, which are views of one joined product: the kernel wants them contiguous.

    They are made inside the autograd function, so that no node of their own copies gradients back.
    Source: ops/utils.py, ensure_contiguous.
    """
    gate, up = (copy(t, part, part.shape) for part in parts)
    return gate, up


def relu_squared(t: Tape, x: Tensor) -> Tensor:
    """`relu(x) ** 2` in one kernel: keeps x. Source: ops/relu_squared.py."""
    shape, dtype, size = x.shape, x.dtype, x.bytes
    t.kernel("elementwise", dtype, 0, 2 * size)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 3 * size)
        return (t.empty(shape, g.dtype),)

    return t.function(t.empty(shape, dtype), (x,), backward, (x,))


def rotated(t: Tape, q: Tensor, k: Tensor, rope: Rope, contiguous: bool) -> tuple[Tensor, Tensor]:
    """Queries and keys turned where they are, and their gradients as well; only the tables are kept.

    `contiguous`: both are stored token by token without anything between; else they are copied first.
    Source: ops/rope.py, rope_forward, rope_backward.
    """
    if contiguous:
        turned = [Tensor(one.shape, one.dtype, one.buffer) for one in (q, k)]
    else:
        turned = [t.empty(one.shape, one.dtype) for one in (q, k)]
        for one in turned:
            t.kernel("elementwise", one.dtype, 0, 2 * one.bytes)
    moved = 2 * (q.bytes + k.bytes) + rope.cos.bytes + rope.sin.bytes
    t.kernel("elementwise", q.dtype, 0, moved)
    if not (t.grad_enabled and (q.needs_grad or k.needs_grad)):
        return turned[0], turned[1]
    parts: list[Tensor | None] = [None, None]

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        t.kernel("elementwise", turned_dtype, 0, moved)
        found = tuple(None if one is None else Tensor(one.shape, one.dtype, one.buffer) for one in parts)
        parts[:] = [None, None]
        return found

    turned_dtype = q.dtype
    node = ManyNode(t, (q, k), backward)
    node.parts = parts
    t.save(node, (rope.cos, rope.sin))
    for index, one in enumerate(turned):
        one.node, one.needs_grad = Output(node, index), True
    return turned[0], turned[1]


def cross_entropy(t: Tape, logits: Tensor) -> Tensor:
    """Cross entropy of logits (B, S, V), upcast to fp32, whose gradient is written over them in forward.

    Source: ops/cross_entropy.py, under transformers' ForCausalLMLoss, which upcasts.
    """
    wide = cast(t, logits, "float32")
    like = Tensor(wide.shape, wide.dtype)
    labels = _shifted_labels(t, logits.shape[0], logits.shape[1])
    losses, counted = t.empty(logits.shape[:2], "float32"), t.empty(logits.shape[:2], "bool")
    t.empty(logits.shape[:2], "int64")  # the targets that count, to check their range
    t.kernel("reduce", "float32", 0, 3 * wide.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", "float32", 0, 2 * like.bytes)
        return (t.overwritten(like, 0),)

    out = t.function(t.empty((1,), "float32"), (wide,), backward, (wide,))
    labels.clear()
    del losses, counted
    return out


def _shifted_labels(t: Tape, batch: int, length: int) -> list[Tensor]:
    """Labels with one more column, and their part without the first, copied."""
    made = [t.empty((batch, length + 1), "int64"), t.empty((batch, length), "int64")]
    for moved in (made[0].bytes, 2 * made[1].bytes, 2 * made[1].bytes):
        t.kernel("elementwise", "int64", 0, moved)
    return made


_MOST_ROWS = 1 << 27


def chunk_rows(tokens: int, vocabulary: int, width: int) -> int:
    """Tokens whose logits exist at a time: so many that these need about what the hidden states do; a power of two.

    Ignores: chunks beyond 2^27 tokens, whose logits no card holds and no recorded size expresses.
    Source: ops/fused_linear_cross_entropy.py, chunk_mem_const = 1.
    """
    pieces = -(-vocabulary // width)
    rows = min(-(-tokens // pieces), _MOST_ROWS)
    return min(1 << (rows - 1).bit_length(), tokens)


class _Casts:
    """What autocast makes of the operands of a chunk's products."""

    def __init__(self, t: Tape, hidden: Tensor, head: Linear, rows: int) -> None:
        self.t, self.head, self.rows = t, head, rows
        self.compute = t.autocast or hidden.dtype
        self.hidden = hidden

    def states(self) -> list[Tensor]:
        """The chunk of hidden states."""
        if self.hidden.dtype == self.compute:
            return []
        return [self._made((self.rows, self.head.in_features), self.hidden.dtype)]

    def weight(self, as_leaf: bool) -> list[Tensor]:
        """The head's weight; a trained leaf is cast once and cached, a view of it each time."""
        weight = self.head.weight
        if weight.dtype == self.compute:
            return []
        if as_leaf and weight.needs_grad:
            return [autocast_operand(self.t, weight)]
        return [self._made(weight.shape, weight.dtype)]

    def _made(self, shape: tuple[int, ...], before: str) -> Tensor:
        out = self.t.empty(shape, self.compute)
        self.t.kernel("elementwise", self.compute, 0, out.bytes + out.count * ITEM_BYTES[before])
        return out


def fused_linear_loss(t: Tape, hidden: Tensor, head: Linear, at_once: int = 0, apart: bool = False) -> Tensor:
    """Head and cross entropy of all B*S tokens in chunks; forward makes the gradients, backward scales them in place.

    Kept: the gradient of the hidden states (N, H), and of the head (V, H) if it trains, in the dtypes of what they
    belong to. A chunk's gradient is written over its logits. `at_once`: tokens of a chunk, 0 for all; `apart`: its part
    of the head's gradient is made in full, then in fp32. Counts a chunk's launches once; the last chunk may be shorter.
    Source: ops/fused_linear_cross_entropy.py; transformers/model/loss_utils.py, LigerForCausalLMLoss.
    """
    batch, length, width = hidden.shape
    tokens, vocabulary, weight = batch * length, head.out_features, head.weight
    rows = at_once or tokens
    casts = _Casts(t, hidden, head, rows)
    compute, trains = casts.compute, weight.needs_grad
    labels = _shifted_labels(t, batch, length)
    grad_hidden = t.empty((tokens, width), hidden.dtype)
    grad_weight = t.empty(weight.shape, weight.dtype) if trains else None
    aside = [t.empty((tokens,), "float32"), t.empty((tokens,), "bool")]  # losses, and which count
    item = ITEM_BYTES[compute]
    read = tokens * (vocabulary * width * item // at_once) if at_once else vocabulary * width * item
    moved = item * tokens * (width + vocabulary) + read

    scratch = casts.states() + casts.weight(as_leaf=False)
    t.matmul(compute, tokens, vocabulary, width, moved, rows=at_once)
    logits = t.empty((rows, vocabulary), compute)
    scratch.clear()
    t.kernel("reduce", compute, 0, 3 * tokens * vocabulary * item)
    scratch = casts.weight(as_leaf=True)
    t.matmul(compute, tokens, width, vocabulary, moved, rows=at_once)
    if t.device == "cpu" or hidden.dtype != compute or weight.dtype != hidden.dtype:
        scratch.append(t.empty((rows, width), compute))
        t.kernel("elementwise", compute, 0, 2 * tokens * width * item)
    scratch.clear()
    if grad_weight is not None:
        _add_weight_gradient(t, casts, grad_weight, tokens, at_once, apart or t.device == "cpu")
    del logits
    shapes = [Tensor(hidden.shape, hidden.dtype), Tensor(weight.shape, weight.dtype)]

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        found = [t.overwritten(like, index) for index, like in enumerate(shapes[: len(t.unpacked)])]
        for one in found:
            t.kernel("elementwise", one.dtype, 0, 2 * one.bytes)
        return (found[0], found[1] if trains else None)

    saved = (grad_hidden,) if grad_weight is None else (grad_hidden, grad_weight)
    loss = t.function(t.empty((1,), "float32"), (hidden, weight), backward, saved)
    aside.clear()
    labels.clear()
    return loss


def _add_weight_gradient(t: Tape, casts: _Casts, gradient: Tensor, tokens: int, at_once: int, apart: bool) -> None:
    """A chunk's part of the head's gradient, added in place by the product itself, or from products made apart."""
    vocabulary, width = gradient.shape
    compute, item = casts.compute, ITEM_BYTES[casts.compute]
    pieces = tokens * (2 * gradient.bytes // at_once) if at_once else 2 * gradient.bytes
    scratch = casts.states()
    made = [t.empty(gradient.shape, compute)] if apart else []
    t.matmul(compute, vocabulary, width, tokens, item * tokens * (width + vocabulary) + pieces)
    scratch.clear()
    if apart:
        if compute != "float32":
            made.append(t.empty(gradient.shape, "float32"))
        t.kernel("elementwise", "float32", 0, 4 * pieces)
    made.clear()
