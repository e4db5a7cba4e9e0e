"""Which kernel `scaled_dot_product_attention` runs on an NVIDIA card, by PyTorch's own rules.

PyTorch tries its kernels in a fixed order and takes the first that accepts the call; its own composition of products
accepts every call. Each refusal below is a check of that code, under the check's name.

Source: PyTorch, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, commit 001f694a, `select_sdp_backend`;
grouped keys in the memory-efficient kernel: pull request 191085, in PyTorch 2.14.0; cuDNN first: pull request 162073,
in effect from the cuDNN of PyTorch 2.11 on (github.com/huggingface/transformers/pull/48163).

Ignores: pointers and strides that are not aligned, deterministic mode, and the environment's switches. It stands for
training: some gradient flows. Not for AMD cards, whose kernels are others.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from advisor.libraries import MIRRORED, Version

Kernel = Literal["cudnn", "flash", "efficient", "math"]

GROUPED_IN_EFFICIENT = (2, 14)
"""The first PyTorch whose memory-efficient kernel takes fewer key heads than query heads."""
CUDNN_FIRST = (2, 11)

KERNEL_NAMES: dict[str, str] = {
    "cudnn": "cuDNN's attention",
    "flash": "flash attention",
    "efficient": "memory-efficient attention",
    "math": "math attention",
}


class Call(NamedTuple):
    """One call of `scaled_dot_product_attention` in training."""

    dtype: str  # of q, k and v, after autocast
    width: int  # of a head of q and k
    value_width: int
    grouped: bool  # fewer key heads than query heads, under `enable_gqa`
    masked: bool  # a mask is given, bool or numbers
    dropout: float = 0.0


class Choice(NamedTuple):
    """The kernel that runs, and why none before it does: one clause for each, with the check of sdp_utils.cpp."""

    kernel: Kernel
    refusals: tuple[tuple[Kernel, str, str], ...]

    @property
    def why(self) -> str:
        """In words, for example 'flash attention takes no mask'; '' where the first choice runs."""
        return "; ".join(f"{KERNEL_NAMES[kernel]} {reason}" for kernel, reason, _ in self.refusals)


def sdpa_kernel(call: Call, capability: str, torch: Version = MIRRORED.torch) -> Choice:
    """The kernel for `call` on a card of compute capability `capability`, for example '8.0'."""
    major, minor = map(int, capability.split("."))
    order: tuple[Kernel, ...] = ("flash", "efficient")
    if prefers_cudnn(capability, torch):
        order = ("cudnn", *order)
    refusals: list[tuple[Kernel, str, str]] = []
    for kernel in order:
        refusal = _REFUSALS[kernel](call, (major, minor), torch)
        if refusal is None:
            return Choice(kernel, tuple(refusals))
        refusals.append((kernel, *refusal))
    return Choice("math", tuple(refusals))


def prefers_cudnn(capability: str, torch: Version = MIRRORED.torch) -> bool:
    """Whether cuDNN is tried first: `check_prefer_cudnn_attention`."""
    return capability.partition(".")[0] in ("9", "10") and torch >= CUDNN_FIRST


def cudnn_takes(call: Call) -> bool:
    """Whether cuDNN runs `call` on a card that prefers it."""
    return _cudnn_refuses(call, (9, 0), MIRRORED.torch) is None


def sums_in_memory(width: int, capability: str) -> bool:
    """Whether the memory-efficient backward adds up gradients of keys and values in memory, for heads of `width`.

    Its kernel for 128 needs more shared memory than the 99 KiB of a block on cards of compute capability 8.6, 8.9 and
    12; the next that fits, with blocks of 64, cannot hold such heads in registers.
    Source: PyTorch, aten/src/ATen/native/transformers/cuda, attention_backward.cu (`maxShmem`),
    mem_eff_attention/kernel_backward.h (`kOutputInRF`), kernels/cutlassB.h (`dispatch_cutlassB_bf16_sm80`).
    """
    small = capability in ("8.6", "8.9") or capability.startswith("12.")
    return width > (96 if small else 128)


Refusal = tuple[str, str]
"""In words, and the function of sdp_utils.cpp that checks it."""


def _half(dtype: str) -> bool:
    return dtype in ("float16", "bfloat16")


def _flash_refuses(call: Call, card: tuple[int, int], torch: tuple[int, int]) -> Refusal | None:
    if card < (8, 0):
        return "needs compute capability 8.0", "check_flash_attention_hardware_support"
    if call.masked:
        return "takes no mask", "check_for_attn_mask"
    if not _half(call.dtype):
        return f"takes no {call.dtype}", "check_dtypes_flash_attention"
    if call.width != call.value_width or call.width > 256:
        return "needs heads of q, k and v of one width, at most 256", "check_head_dim_size_flash"
    limited = (8, 6) <= card <= (8, 9) or card >= (12, 0)
    if limited and call.width > 192 and (call.width <= 224 or call.dropout > 0):
        name = "check_requires_grad_and_head_dim_gt192_constraints_on_sm86_89_or_120"
        return f"has no backward for heads of {call.width} here", name
    return None


def _efficient_refuses(call: Call, card: tuple[int, int], torch: tuple[int, int]) -> Refusal | None:
    if card < (8, 0) and call.dtype == "bfloat16":
        return "takes bfloat16 only from compute capability 8.0 on", "can_use_mem_efficient_attention"
    step = _alignment(call.dtype, card)
    if call.width % step or call.value_width % step:
        return f"needs heads whose width {step} divides", "check_head_dim_size_mem_efficient"
    if call.grouped and torch < GROUPED_IN_EFFICIENT:
        first = ".".join(map(str, GROUPED_IN_EFFICIENT))
        return f"takes grouped keys only from PyTorch {first} on", "check_batch_size_and_num_heads_dense"
    return None


def _alignment(dtype: str, card: tuple[int, int]) -> int:
    """What the width of a head must be divisible by. Source: `minimum_gemm_alignment`."""
    least, bits = 4 if card >= (8, 0) else 1, 16 if _half(dtype) else 32
    tensor_cores = card >= (8, 0) or (card >= (7, 0) and _half(dtype))
    return max(least, 128 // bits) if tensor_cores else least


def _cudnn_refuses(call: Call, card: tuple[int, int], torch: tuple[int, int]) -> Refusal | None:
    if not _half(call.dtype):
        return f"takes no {call.dtype}", "check_dtypes_low_precision"
    if call.dropout * 16 % 1:
        return "takes only multiples of 1/16 as dropout", "check_cudnn_dropout"
    widths = (call.width, call.value_width)
    if widths != (192, 128) and max(widths) > 128:
        return "takes heads of at most 128", "check_cudnn_tensor_shapes"
    if call.width % 8 or call.value_width % 8:
        return "needs heads whose width 8 divides", "check_cudnn_tensor_shapes"
    return None


_REFUSALS = {"cudnn": _cudnn_refuses, "flash": _flash_refuses, "efficient": _efficient_refuses}
