"""Attention in one kernel: flash, cuDNN's, PyTorch's memory-efficient one, and rows without their padding."""

from __future__ import annotations

from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.tape.graph import Shape, Tensor
from advisor.tape.ops import cast
from advisor.tape.tape import Tape

PREFERRED = ("attention", "attention backward")
FLASH = ("flash attention", "flash attention backward")
EFFICIENT = ("efficient attention", "efficient attention backward")
IN_MEMORY = "efficient attention backward, sums in memory"
"""Kinds of kernels without a mask: flash attention, or cuDNN's on a card that prefers it; flash attention where cuDNN
takes no such call; PyTorch's memory-efficient one; its backward for heads too wide for registers."""
CUDNN_MASKED = ("cudnn attention", "cudnn attention backward")
MASKED = ("masked attention", "masked attention backward")
MASKED_IN_MEMORY = "masked attention backward, sums in memory"
"""The same under a mask that is read as numbers; flash attention takes none."""


def mask_numbers(t: Tape, mask: Tensor, batch: int, dtype: str) -> Tensor:
    """A bool mask (1, 1, S, S) as numbers, row by row."""
    if mask.dtype != "bool":
        return mask
    out = t.empty((batch, *mask.shape[1:]), dtype)
    for moved in (2, 2, mask.bytes + out.bytes):  # zero, minus infinity, one of the two for each
        t.kernel("elementwise", dtype, 0, moved)
    return out


def fused_attention(
    t: Tape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    window: int = 0,
    kinds: tuple[str, str] = PREFERRED,
    causal: bool = True,
) -> Tensor:
    """Flash attention or cuDNN's: q (B, H, S, D), k and v (B, KV, S, D) -> (B, H, S, D).

    Keeps q, k, v, its output, one fp32 log-sum-exp per row, and a mask as numbers of q's dtype. `window` is 0
    unless it is shorter than the row; `kinds` are those of the kernels that it launches. On CUDA backward also makes
    an fp32 accumulator of q's size, and gradients of k and v for every query head before it sums them over a group.
    """
    if t.autocast:
        q, k, v = cast(t, q, t.autocast), cast(t, k, t.autocast), cast(t, v, t.autocast)
        if mask is not None and mask.dtype != "bool":
            mask = cast(t, mask, t.autocast)
    batch, heads, length, width = q.shape
    groups, keys = heads // k.shape[1], k.shape[2]
    dtype, q_shape, k_shape, v_shape = q.dtype, q.shape, k.shape, v.shape
    out_shape = (*q.shape[:-1], v.shape[-1])
    row_pairs = length * (length + 1)  # twice as many as there are: causal, all under a mask, or those of a window
    if window and not causal and mask is None:  # so many tokens on both sides
        row_pairs = 2 * length * (2 * window + 1) - 2 * window * (window + 1)
    elif mask is not None or not causal:
        row_pairs = 2 * length * keys
    elif window:
        row_pairs = 2 * length * window - window * (window - 1)
    flop = batch * heads * row_pairs * (width + out_shape[-1])
    inputs, mask_bytes = q.bytes + k.bytes + v.bytes, 0
    outputs = prod(out_shape) * ITEM_BYTES[dtype] + batch * heads * length * 4
    saved: tuple[Tensor, ...] = (q, k, v)
    if mask is not None:
        numbers = mask_numbers(t, mask, batch, dtype)
        saved = (*saved, numbers)
        mask_bytes = numbers.bytes
    t.kernel(kinds[0], dtype, flop, inputs + mask_bytes + outputs)
    lse = t.empty((batch, heads, length), "float32")

    def backward(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t.kernel(kinds[1], dtype, flop // 2 * 5, 2 * inputs + mask_bytes + outputs + g.bytes)
        scratch = []
        if t.device == "cuda":
            scratch = [t.empty(q_shape, "float32"), t.empty((batch, heads, length), "float32")]
            if groups > 1:
                wide = (batch, heads, keys, width)
                scratch += [t.empty(wide, dtype), t.empty(wide, dtype)]
            _flash_backward_ends(t, dtype, g.bytes, q_shape, k_shape if groups > 1 else None)
        out = (t.empty(q_shape, dtype), t.empty(k_shape, dtype), t.empty(v_shape, dtype))
        scratch.clear()
        return out

    return t.op((q, k, v), out_shape, dtype, backward, (*saved, lse), keep_output=True)


def _flash_backward_ends(t: Tape, dtype: str, grad_bytes: int, q_shape: Shape, k_shape: Shape | None) -> None:
    """What runs around flash attention's backward: rows of gradient times output, and the casts of its fp32 sums.

    `k_shape` is that of keys which several heads share: their gradients are summed over each group.
    Source: PyTorch 2.13, aten/src/ATen/native/transformers/cuda/flash_attn, flash_bwd_launch_template.h, flash_api.cpp.
    """
    wide = prod(q_shape)
    t.kernel("reduce", dtype, 0, 2 * grad_bytes + 4 * wide)  # clears the accumulator as well
    t.kernel("elementwise", dtype, 0, (4 + ITEM_BYTES[dtype]) * wide)
    if k_shape is not None:
        for _ in range(2):
            t.kernel("reduce", dtype, 0, ITEM_BYTES[dtype] * (wide + prod(k_shape)))


def efficient_attention(
    t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, in_memory: bool, causal: bool = True
) -> Tensor:
    """Memory-efficient attention: q (B, H, S, D), k and v (B, KV, S, D) -> (B, H, S, Dv), token by token.

    Keeps what flash attention keeps. A mask makes it compute the whole square; without one it leaves out blocks above
    the diagonal. Heads above 128 are summed in memory, in fp32. Backward makes an fp32 accumulator of q's size;
    `in_memory`: its gradients of keys and values do not fit into registers (`sdpa.sums_in_memory`).
    Source: PyTorch 2.13, aten/src/ATen/native/transformers/cuda, attention.cu, attention_backward.cu and
    mem_eff_attention/kernel_{forward,backward}.h (`kNeedsOutputAccumulatorBuffer`, `workspace_elements_gq`).

    Ignores: a bias whose rows are padded to a multiple of 8, a log-sum-exp padded to 32 rows, and accumulators for the
    gradients of keys and values in memory, which are held to 200 blocks of 64 rows in all.
    """
    if t.autocast:
        q, k, v = cast(t, q, t.autocast), cast(t, k, t.autocast), cast(t, v, t.autocast)
    batch, heads, length, width = q.shape
    groups, dtype, value_width = heads // k.shape[1], q.dtype, v.shape[-1]
    q_shape, k_shape, v_shape = q.shape, k.shape, v.shape
    out_shape, rows = (batch, heads, length, value_width), (batch, heads, length)
    pairs = length * (length + 1) if mask is None and causal else 2 * length * k.shape[2]
    flop = batch * heads * pairs * (width + value_width)
    saved: tuple[Tensor, ...] = (q, k, v)
    if mask is not None:
        saved = (*saved, mask_numbers(t, mask, batch, dtype))
    inputs = sum(tensor.bytes for tensor in saved)
    outputs = prod(out_shape) * ITEM_BYTES[dtype] + 4 * batch * heads * length
    first, second, wide = (*EFFICIENT, IN_MEMORY) if mask is None else (*MASKED, MASKED_IN_MEMORY)
    t.kernel(first, dtype, flop, inputs + outputs)
    lse = t.empty(rows, "float32")
    sums = t.empty(out_shape, "float32") if value_width > 128 and dtype != "float32" else None

    def backward(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = (t.empty(q_shape, dtype), t.empty(k_shape, dtype), t.empty(v_shape, dtype))
        scratch = []
        if dtype == "float32":  # rows of gradient times output; 16-bit kernels compute them
            t.kernel("elementwise", dtype, 0, 3 * g.bytes)
            scratch.append(t.empty(out_shape, dtype))
            t.kernel("reduce", dtype, 0, g.bytes)
        scratch[:] = [t.empty(rows, "float32")]
        scratch.append(t.empty(q_shape, "float32"))
        if groups > 1:
            scratch += [t.empty((batch, heads, length, size), dtype) for size in (width, value_width)]
            for size in (k_shape, v_shape):
                t.kernel("reduce", dtype, 0, ITEM_BYTES[dtype] * (groups + 1) * prod(size))
        t.kernel(wide if in_memory else second, dtype, flop // 2 * 5, 2 * inputs + outputs)
        scratch.clear()
        return out

    result = t.op((q, k, v), out_shape, dtype, backward, (*saved, lse), keep_output=True)
    del sums
    return result


def without_padding(t: Tape, x: Tensor, indices: Tensor) -> Tensor:
    """The rows of x (B, heads, S, D) that are no padding, gathered: counted as if all were kept.

    Source: transformers 5.23, modeling_flash_attention_utils.py, `_upad_input`.
    """
    return _gathered(t, x, indices, zeros_first=False)


def with_padding(t: Tape, x: Tensor, indices: Tensor) -> Tensor:
    """Those rows put back among zeros. Source: the same file, `_pad_input`."""
    return _gathered(t, x, indices, zeros_first=True)


def _gathered(t: Tape, x: Tensor, indices: Tensor, zeros_first: bool) -> Tensor:
    """A copy by index, either into zeros or, in backward, its gradient into zeros."""
    shape, dtype, size, index_bytes = x.shape, x.dtype, x.bytes, indices.bytes

    def move(into_zeros: bool) -> None:
        if into_zeros:
            t.kernel("elementwise", dtype, 0, size)
        t.kernel("gather", dtype, 0, 2 * size + index_bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        move(not zeros_first)
        return (t.empty(shape, g.dtype),)

    move(zeros_first)
    return t.op((x,), shape, dtype, backward, (indices,))
