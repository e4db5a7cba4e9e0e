"""Rates of fused attention by kernel, mask and dtype, over those of flash attention and of an fp32 product.

What a card does in flash attention and in products is measured by generation (`costs.device`). The other kernels were
measured on a few cards; their ratios to it are taken as properties of the kernels, and `unsure` says how far published
figures lie from them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.decoders.fused import CUDNN_MASKED, EFFICIENT, FLASH, IN_MEMORY, MASKED, MASKED_IN_MEMORY, PREFERRED
from advisor.interval import Interval
from advisor.tape.graph import BATCHED
from advisor.tape.program import Kernel

ATTENTION = (*PREFERRED, *FLASH, *EFFICIENT, IN_MEMORY, *MASKED, MASKED_IN_MEMORY, *CUDNN_MASKED)
"""Kinds of fused attention kernels."""

CUDNN_OVER_FLASH = (1.65, 2.0)
"""cuDNN's attention over flash attention, forward and backward, on Hopper and on later cards with HBM, which prefer it.

An H100 does 610 and 370 TFLOP/s forward for heads of 128, 413 and 324 for 64 (Shah et al. 2024, arXiv:2407.08608,
figure 5); forward and backward together take 1/1.7 to 1/2.3 of the time
(github.com/huggingface/transformers/pull/48163). A B200's forward takes 1/2.9 of it
(github.com/sgl-project/sglang/pull/33655) and reaches 980 to 1,430 TFLOP/s
(github.com/Dao-AILab/flash-attention/pull/2605).
"""

BEFORE_FLASH = frozenset({"pascal", "volta", "turing"})
"""Classes of cards whose attention rates are those of memory-efficient kernels: flash attention does not run there."""

EFFICIENT_BEFORE_FLASH, EFFICIENT_OVER_FLASH = (1.0, 1.0), (0.43, 0.43)
"""PyTorch's memory-efficient kernels over flash attention in 16 bits, forward and backward.

On an A100 92 to 108 TFLOP/s forward (github.com/facebookresearch/xformers/issues/712 and pull/389) and 79 to 81
backward under a bias (github.com/NVIDIA/cutlass/pull/992) are 0.43 of its rates; 36 and 84 forward
(github.com/NVIDIA/TileGym/pull/49). All other cards from Ampere on: assumed alike.
"""

FP32_OVER_PRODUCT = {
    **dict.fromkeys(BEFORE_FLASH, (0.6, 0.45)),
    **dict.fromkeys(("ampere", "ada", "blackwell"), (0.2, 0.15)),
    "ampere hbm": (1.2, 0.8),
    "hopper": (0.6, 0.4),
    "hopper cut": (0.23, 0.16),
    "blackwell hbm": (1.1, 0.8),
}
"""Fused attention in fp32 over an fp32 product, forward and backward, by class of card, where it is known.

From Ampere on matrix units do it, as three TF32 products: 21 to 26 TFLOP/s forward, 14.7 backward on an A100 (the same
xformers pages), hence 0.10 and 0.08 of flash attention's rate; so everywhere. Before Ampere 9.7 of a V100's 15.7; its
backward is our judgment.
"""

SUMS_IN_MEMORY = 0.41
"""The rate of the memory-efficient backward whose sums are in memory, over that with sums in registers.

An A100 does 21.7 TFLOP/s for heads of 256 and 52.3 for 128 (github.com/facebookresearch/xformers/pull/587, 16 rows of
1,024, 16 heads). An RTX 5090 does 36 to 42 for 512 (github.com/xlite-dev/ffpa-attn/issues/235), 0.57 of what its flash
attention times 0.43 would be.
"""

MASKED_OVER_PLAIN = (0.73, 0.54)
"""The rate of a memory-efficient kernel that reads a mask, over that without: in 16 bits and in fp32, means of 3 cards.

What public training steps leave for masked attention, forward and backward together, is for heads of 128 in 16 bits 59
to 66 TFLOP/s on an A100, 87 to 118 on an H100 and 42 to 46 on an RTX PRO 6000, for heads of 256 half to nine tenths of
it, and in fp32 about 6, 13 and 12, each known to 20 %. Without a mask we say 81, 128 and 70; 15, 24 and 16.
"""


CUDNN_MASKED_OVER_FLASH = (0.31, 0.31)
"""cuDNN's attention under a mask over flash attention: taken as the memory-efficient kernel's; see `unsure`."""


class AttentionRate(NamedTuple):
    """One kind of kernel."""

    share: float  # in 16 bits, over a large product
    fp32_share: float  # over a large fp32 product
    padding_flop_per_byte: float


Pair = tuple[float, float]
"""Of a forward and of a backward kernel."""


class Shares(NamedTuple):
    """What a card does in each kernel, over what its name says; fields of a `DeviceProfile`, or their quotients."""

    flash: Pair  # over a large product
    cudnn: Pair  # over flash attention, and so the next; 1 where flash attention is preferred
    cudnn_masked: Pair
    efficient: Pair
    sums_in_memory: float  # over the backward of `efficient`
    masked: Pair  # over a memory-efficient kernel without a mask: in 16 bits, in fp32
    fp32: Pair  # over a large fp32 product
    padding: Pair  # FLOP per byte


@lru_cache(maxsize=256)
def attention_rates(card: Shares) -> dict[str, AttentionRate]:
    """The rate of each kind in ATTENTION.

    In fp32 sums are in memory for any width, so that its backward has one rate. cuDNN's kernels take no fp32.
    """
    flash, fp32 = card.flash, card.fp32
    efficient = _times(flash, card.efficient)
    in_memory = efficient[1] * card.sums_in_memory
    half, single = card.masked

    def pair(kinds: tuple[str, str], share: Pair, fp32_share: Pair) -> dict[str, AttentionRate]:
        return dict(zip(kinds, map(AttentionRate, share, fp32_share, card.padding), strict=True))

    masked, masked_fp32 = _times(efficient, (half, half)), _times(fp32, (single, single))
    return {
        **pair(PREFERRED, _times(flash, card.cudnn), fp32),
        **pair(FLASH, flash, fp32),
        **pair(EFFICIENT, efficient, fp32),
        IN_MEMORY: AttentionRate(in_memory, fp32[1], card.padding[1]),
        **pair(MASKED, masked, masked_fp32),
        MASKED_IN_MEMORY: AttentionRate(in_memory * half, masked_fp32[1], card.padding[1]),
        **pair(CUDNN_MASKED, _times(flash, card.cudnn_masked), masked_fp32),
    }


def _times(one: Pair, other: Pair) -> Pair:
    return one[0] * other[0], one[1] * other[1]


def _each(kinds: tuple[str, ...], dtypes: tuple[str, ...], time: Interval) -> dict[tuple[str, str], Interval]:
    return {(kind, dtype): time for kind in kinds for dtype in dtypes}


_HALF, _FP32 = ("float16", "bfloat16"), ("float32",)

# efficient   92 to 108 TFLOP/s forward on an A100, where we say 92; 36 to 42 backward in memory on an RTX 5090, where
#             we say 28.
# masked      the ranges of MASKED_OVER_PLAIN, each with its 20 %.
# by cuDNN    its forward keeps 0.89 of its rate under a bias (github.com/pytorch/pytorch/issues/138493), which is four
#             times ours; for short rows it is 1.4 times as slow as the memory-efficient kernel
#             (github.com/pytorch/pytorch/pull/130482).
# products    in fp32 and in a batch, as in math and eager attention: no figure found for heads of 64 to 256; public
#             steps leave less than the rate of a large product.
_UNSURE: dict[tuple[str, str], Interval] = {
    **_each((*EFFICIENT, IN_MEMORY), _HALF, Interval(0.7, 1.0, 1.3)),
    **_each((*EFFICIENT, IN_MEMORY), _FP32, Interval(0.75, 1.0, 1.6)),
    **_each((*MASKED, MASKED_IN_MEMORY), _HALF, Interval(0.6, 1.0, 1.35)),
    **_each((*MASKED, MASKED_IN_MEMORY), _FP32, Interval(0.6, 1.0, 1.6)),
    **_each(CUDNN_MASKED, _HALF, Interval(0.25, 1.0, 1.5)),
    (BATCHED, "float32"): Interval(0.9, 1.0, 1.5),
}
"""By kind and dtype."""


def unsure(kernel: Kernel) -> Interval | None:
    """The time of a kernel bound by arithmetic that is less certain than its card: low and high over likely."""
    return _UNSURE.get(kernel[:2])
