"""Unsloth's norms and rotary positions: one kernel each, with what it keeps and what it overwrites.

Source: unsloth 2026.10.9, kernels/rms_layernorm.py (Fast_RMS_Layernorm), kernels/rope_embedding.py
(Fast_RoPE_Embedding_QK, Fast_RoPE_Embedding_QK_Positions), kernels/qk_norm_rope.py (Fast_QK_Norm_RoPE).
Ignores: weights of norms that are trained, which only its generated models have.
"""

from __future__ import annotations

from advisor.tape.graph import BackwardFunction, ManyNode, Output, Tensor
from advisor.tape.tape import Tape


def norm_in_place(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm of x (..., H): keeps x and one fp32 number a row; its gradient overwrites the one that comes in."""
    return _norm(t, x, in_place=True)


def norm_apart(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """Gemma's, of (1 + weight): the same, but its gradient is a new tensor."""
    return _norm(t, x, in_place=False)


def _norm(t: Tape, x: Tensor, in_place: bool) -> Tensor:
    shape, dtype = x.shape, x.dtype
    roots = t.empty((*shape[:-1], 1), "float32")
    t.kernel("reduce", dtype, 0, 2 * x.bytes + roots.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("reduce", dtype, 0, 3 * g.bytes)
        return (Tensor(shape, g.dtype, g.buffer) if in_place else t.empty(shape, g.dtype),)

    return t.op((x,), shape, dtype, backward, (x, roots))


def rotated_in_place(t: Tape, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys rotated where they are; their gradients are new tensors. Keeps nothing but shared tables."""
    t.kernel("elementwise", q.dtype, 0, 2 * (q.bytes + k.bytes))
    out = Tensor(q.shape, q.dtype, q.buffer), Tensor(k.shape, k.dtype, k.buffer)
    return _pair(t, (q, k), out)


def rotated_apart(t: Tape, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The same by position ids, as packed rows need: into new tensors."""
    t.kernel("elementwise", q.dtype, 0, 2 * (q.bytes + k.bytes))
    return _pair(t, (q, k), (t.empty(q.shape, q.dtype), t.empty(k.shape, k.dtype)))


def normed_and_rotated(t: Tape, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Norms of heads and rotation in one kernel: keeps q and k as projected, and one fp32 number a head and token."""
    roots = tuple(t.empty((*x.shape[:-1], 1), "float32") for x in (q, k))
    t.kernel("reduce", q.dtype, 0, 2 * (q.bytes + k.bytes))
    return _pair(t, (q, k), (t.empty(q.shape, q.dtype), t.empty(k.shape, k.dtype)), (q, k, *roots))


def _pair(
    t: Tape, x: tuple[Tensor, Tensor], out: tuple[Tensor, Tensor], saved: tuple[Tensor, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Two outputs of one node, whose gradients are new tensors; both that come in live until it is done."""
    if not (t.grad_enabled and any(one.needs_grad for one in x)):
        return out
    like = [(one.shape, one.dtype) for one in x]
    parts: list[Tensor | None] = [None, None]

    def backward(_: Tensor) -> tuple[Tensor, ...]:
        given = tuple(parts)
        parts[:] = [None, None]
        made = tuple(t.empty(*one) for one in like)
        t.kernel("elementwise", like[0][1], 0, 2 * sum(one.bytes for one in made))
        del given
        return made

    made: BackwardFunction = backward
    node = ManyNode(t, x, made)
    node.parts = parts
    if saved:
        t.save(node, saved)
    for index, one in enumerate(out):
        one.node, one.needs_grad = Output(node, index), True
    return out
