"""Attention of a vision tower: every patch of a piece attends to every other, piece by piece, or tile beside tile.

Source: transformers 5.23, models/qwen2_5_vl/modeling_qwen2_5_vl.py, Qwen2_5_VLVisionAttention.forward, and
integrations/sdpa_attention.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.decoders.attention import Layout, composed_attention
from advisor.decoders.fused import (
    CUDNN_MASKED,
    EFFICIENT,
    FLASH,
    PREFERRED,
    efficient_attention,
    fused_attention,
)
from advisor.decoders.sdpa import Call, cudnn_takes, sdpa_kernel, sums_in_memory
from advisor.decoders.stack import Stack
from advisor.decoders.vision import Tower
from advisor.tape.graph import Tensor
from advisor.tape.layout import alias, copy
from advisor.tape.ops import cast
from advisor.tape.tape import Tape


def kinds_of(t: Tape, q: Tensor, stack: Stack, card: str) -> tuple[str, str]:
    """The kernels that run, forward and backward; on the CPU and on a card that is not known, flash attention."""
    width = q.shape[-1]
    call = Call(t.autocast or q.dtype, width, width, False, False, 0.0)
    if card and sdpa_kernel(call, card, stack.libraries.torch).kernel not in ("flash", "cudnn"):
        return EFFICIENT
    return PREFERRED if cudnn_takes(call) else FLASH


def attended_tiles(d: Tower, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q, k and v (N, P, H) of N tiles, in each of which all attend to all: (N, P, H)."""
    t, (tiles, places, width) = d.t, q.shape
    shape = (tiles, d.v.num_attention_heads, places, d.v.head_dim)
    q, k, v = (t.view(x, shape) for x in (q, k, v))
    return t.view(attended_heads(d, q, k, v), (tiles, places, width))


def attended_heads(d: Tower, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Queries, keys and values (N, heads, P, D), in the kernel that PyTorch picks; a mask is one of numbers."""
    t, width = d.t, d.v.head_dim
    call = Call(t.autocast or q.dtype, width, width, False, mask is not None, 0.0)
    kernel = sdpa_kernel(call, d.card, d.stack.libraries.torch).kernel if d.card else "flash"
    if kernel == "efficient":
        return efficient_attention(t, q, k, v, mask, sums_in_memory(width, d.card), causal=False)
    if kernel == "math":
        layout = Layout(False, False, False, grouped=False, single_row=False)
        return copy(t, composed_attention(t, q, k, v, mask, False, layout, causal=False), q.shape)
    if mask is not None:
        return fused_attention(t, q, k, v, mask, 0, CUDNN_MASKED, causal=False)
    return fused_attention(t, q, k, v, None, 0, PREFERRED if cudnn_takes(call) else FLASH, causal=False)


def attended_pieces(t: Tape, q: Tensor, k: Tensor, v: Tensor, pieces: Sequence[int], kinds: tuple[str, str]) -> Tensor:
    """q, k and v (P, heads, D) of all patches, cut into `pieces` of so many -> (P, heads, D), joined by one `cat`."""
    q, k, v = (_cut(t, x) for x in (q, k, v))
    if t.autocast:
        q, k, v = (cast(t, x, t.autocast) for x in (q, k, v))
    out = _attended(t, q, k, v, pieces, kinds)
    return copy(t, out, out.shape)


def _cut(t: Tape, x: Tensor) -> Tensor:
    """`torch.split` into pieces: views, whose gradients one `cat` joins."""
    shape = x.shape

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        return (t.empty(shape, g.dtype),)

    return alias(t, (x,), backward)


def _attended(t: Tape, q: Tensor, k: Tensor, v: Tensor, pieces: Sequence[int], kinds: tuple[str, str]) -> Tensor:
    """One call a piece, whose tensors are counted together: they lie side by side in time.

    Each keeps q, k, v, its output and one fp32 log-sum-exp a row. On CUDA backward also makes an fp32 accumulator of a
    piece's queries.
    """
    _, heads, width = q.shape
    shape, dtype = q.shape, q.dtype
    calls, longest, item = Counter(pieces), max(pieces), ITEM_BYTES[dtype]
    for length, times in calls.items():
        size, flop = heads * length * width, 4 * heads * length * length * width
        for _ in range(times):
            t.kernel(kinds[0], dtype, flop, 4 * item * size + 4 * heads * length)
    sums = tuple(t.empty((heads, length), "float32") for length in pieces)

    def backward(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scratch = []
        if t.device == "cuda":
            scratch = [t.empty((longest, heads, width), "float32"), t.empty((longest, heads), "float32")]
        for length, times in calls.items():
            size, flop = heads * length * width, 4 * heads * length * length * width
            for _ in range(times):
                t.kernel(kinds[1], dtype, flop // 2 * 5, 8 * item * size + 4 * heads * length)
                if t.device == "cuda":
                    t.kernel("reduce", dtype, 0, 2 * item * size + 4 * size)
                    t.kernel("elementwise", dtype, 0, (4 + item) * size)
        out = (t.empty(shape, dtype), t.empty(shape, dtype), t.empty(shape, dtype))
        scratch.clear()
        return out

    assert prod(shape) == prod(k.shape)
    return t.op((q, k, v), shape, dtype, backward, (q, k, v, *sums), keep_output=True)
