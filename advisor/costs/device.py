"""How much of its data sheet a card achieves: efficiencies, launch costs, and the memory that CUDA takes for itself.

A `DeviceProfile` holds numbers and no formula; `steptime` and `estimation` hold the formulas. These are
defaults per generation, set from public benchmarks and not fitted to any training run: their spread says how far a
card, a host or a library version may be from them. A calibration on the card itself replaces them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, NamedTuple

from advisor.costs.attention_rates import (
    BEFORE_FLASH,
    CUDNN_MASKED_OVER_FLASH,
    CUDNN_OVER_FLASH,
    EFFICIENT_BEFORE_FLASH,
    EFFICIENT_OVER_FLASH,
    FP32_OVER_PRODUCT,
    MASKED_OVER_PLAIN,
    SUMS_IN_MEMORY,
)
from advisor.costs.dequantization import BRANCHING_RATE
from advisor.costs.host_link import PCIE3, host_link
from advisor.costs.power import powered_share
from advisor.costs.spreads import FEW_SPREAD, LAUNCH_SPREAD, SPREAD, UNPUBLISHED_SPREAD
from advisor.frozen import Frozen, Range
from advisor.interval import Interval
from advisor.specs import GpuSpec
from advisor.units import GIB

Fraction = Annotated[float, Range(0, 1, open_low=True)]
Positive = Annotated[float, Range(0, open_low=True)]


class DeviceProfile(Frozen):
    """Achieved rates as fractions of the data sheet, fixed costs in seconds, overheads in bytes."""

    name: str  # class of cards that the numbers stand for
    asynchronous: bool = True  # the device computes while the host launches; a CPU does both in turn

    matrix_efficiency: Fraction  # of the 16-bit matrix peak, for a large product
    vector_efficiency: Fraction  # of the fp32 peak, for a large fp32 product (no TF32)
    # tile padding: a product of (m, n, k) takes the time of (m + a, n + b, k + c), for half-filled tiles, an empty pipe
    padding: tuple[float, float, float]
    vector_padding: tuple[float, float, float]  # the same for fp32 products, whose tiles are smaller
    attention_forward: Fraction  # of the 16-bit matrix peak, fused attention on long rows
    attention_backward: Fraction
    # over flash attention in 16 bits, forward and backward; cuDNN's where it is preferred
    cudnn_attention: tuple[Positive, Positive] = CUDNN_OVER_FLASH
    cudnn_masked_attention: tuple[Positive, Positive] = CUDNN_MASKED_OVER_FLASH
    efficient_attention: tuple[Positive, Positive] = EFFICIENT_OVER_FLASH
    sums_in_memory: Positive = SUMS_IN_MEMORY  # of that backward's rate, for heads too wide for its registers
    masked_attention: tuple[Positive, Positive] = MASKED_OVER_PLAIN  # of its rates: in 16 bits, in fp32
    # fused attention in fp32, over an fp32 product; above 1 where matrix units do it in three TF32 products
    attention_fp32: tuple[Positive, Positive] = (1.0, 1.0)
    batched_fp32: Positive = 1.0  # batched fp32 products, over one fp32 product
    # extra work per byte of q, k, v and their gradients: half tiles, the ends of a loop; forward and backward
    attention_padding_flop_per_byte: tuple[float, float]

    matmul_bandwidth: Fraction  # of peak bandwidth, operands of a matrix product
    elementwise_bandwidth: Fraction
    reduce_bandwidth: Fraction
    gather_bandwidth: Fraction
    strided_bandwidth: Fraction  # a sum whose operands lie in different orders in memory, as in DoRA's norm
    optimizer_bandwidth: Fraction  # clipping and the optimizer, which work in place
    dequantize_bandwidth: Fraction  # 4-bit and 8-bit weights to 16 bits, in bitsandbytes' kernels
    branching_dequantize: Fraction = 1.0  # of it, before bitsandbytes 0.48
    cache_bytes: Annotated[float, Range(0)]  # level-2 cache, which serves what was just written
    cache_speedup: Annotated[float, Range(1)]  # bandwidth of that cache over the memory's

    kernel_s: Positive  # time on the card of a kernel with no work: start, tail and gap
    forward_launch_s: Positive  # CPU time per kernel that the model's Python code launches
    backward_launch_s: Positive  # per kernel that autograd's engine launches
    hook_s: Annotated[float, Range(0)]  # extra CPU time per kernel under checkpointing's hooks on saved tensors
    micro_step_s: Positive  # CPU time per micro-step outside the model: loader, copies, a sync
    optimizer_step_s: Positive  # CPU time per optimizer step: schedule, logging, callbacks
    host_bytes_per_s: Interval = PCIE3  # of copies from or to the host's pinned memory
    device_spread: Interval  # time on the card over the predicted time
    launch_spread: Interval  # time on the CPU over the predicted time

    context_bytes: Interval  # CUDA context and loaded kernels, outside PyTorch's allocator
    workspace_bytes: Annotated[int, Range(0)]  # cuBLAS workspaces, inside PyTorch's allocator
    fragmentation: Positive = 1.0  # what the allocator reserves beyond its tensors, over what a simulated one does
    evidence: str


class _Generation(NamedTuple):
    """What sets one class of cards apart. Times in microseconds, context in GiB, as sources print them."""

    name: str
    matrix: float
    watts_per_tflops: float
    vector: float
    attention: tuple[float, float]
    stream: float
    cache_us: float
    kernel_us: float
    host: float | tuple[float, float]
    context_gib: tuple[float, float, float]
    cudnn: tuple[float, float] = CUDNN_OVER_FLASH


FORWARD_LAUNCH_S, BACKWARD_LAUNCH_S, HOOK_S = 10e-6, 6.5e-6, 4e-6
"""CPU time per kernel of transformers 5.23 with peft on torch 2.13.

On one core of an AMD EPYC (Zen 5), with tensors so small that the kernels themselves take about 1 us: 7 to 10 us
forward (most where peft's code runs), 4 to 6 us in autograd's engine, 3 to 5 us more under non-reentrant checkpointing
(`python -m benchmarks.host`). A CUDA launch takes 1 to 3 us (github.com/meta-pytorch/tritonbench/pull/1017).
"""

# matrix     limit for large products, over the dense peak with fp32 accumulation. The best shapes reach 271 of
#            312 TFLOP/s on an A100 SXM, 253 on a PCIe one, 794 of 989 on an H100 SXM, 1745 of 2250 on a B200
#            (github.com/stas00/ml-engineering, compute/accelerator/README.md); ordinary shapes a little less.
#            GeForce cards run their halved matrix units at full clock: an L20 gives 105..115 of 119.5
#            (github.com/DefTruth/CUDA-Learn-Notes, hgemm), an RTX 4090 168 of 165
#            (github.com/tinygrad/tinygrad/pull/11390).
# watts      power per dense 16-bit TFLOP/s at which that limit is reached. A card with less meets its power limit
#            first: its rate falls with the square root of what it has. Between cards of one generation this is our
#            interpolation: an RTX 4090 has 2.7 W, an L40S 0.97, an L4 0.6 from one process.
# vector     large fp32 products: 18.9 of 19.5 TFLOP/s on an A100, 29.2 of 35.5 on an RTX 4070 Ti, whose peak counts
#            pairs of operations (github.com/Yinghan-Li/YHs_Sample/issues/4).
# attention  FlashAttention 2 over the matrix limit, forward and backward: at best 0.73 and 0.63 of an A100's peak
#            (Dao 2023, arXiv:2307.08691, section 4), 84 and 77 of 111 TFLOP/s on an RTX A5000
#            (github.com/gpu-mode/ring-attention/issues/10), 370 forward on an H100 (Shah et al. 2024,
#            arXiv:2407.08608, figure 5), 300 backward (github.com/Dao-AILab/flash-attention/pull/2688). Before Ampere
#            PyTorch falls back to memory-efficient kernels: our judgment. A V100's reach 0.27 of its peak forward
#            (github.com/facebookresearch/xformers/pull/587).
# stream     large elementwise kernels over peak bandwidth: our judgment, as copies reach 0.85..0.93.
# cache_us   level-2 cache as microseconds of memory traffic: A100 40 MB / 1.56..2.0 TB/s, H100 50 MB / 3.35,
#            RTX 4090 72 MB / 1.0, L40S 96 MB / 0.86, RTX 3090 6 MB / 0.94, V100 6 MB / 0.9 (NVIDIA's white papers).
# kernel_us  an empty kernel in a full queue, with the gap to the next: our judgment.
# host       CPU time per launch over that of the EPYC above, a core of 2024: in a desktop with a GeForce card, in a
#            server. The host that comes with a card is as old as the card: single-thread ratings put an EPYC 7742 or
#            Xeon of 2019 at 0.6 of that core, one of 2023 at 0.75, a desktop's Core i9-13900K at 1.2
#            (cpubenchmark.net/single-thread). Our choice of hosts.
# H20        matrix units cut to a seventh, all else a Hopper's, so nothing holds them back: 142 of 148 TFLOP/s
#            (github.com/zzc0721/torch-performance-test-data/issues/77), FlashAttention 2 at 84 forward and cuDNN at 129
#            (github.com/Dao-AILab/flash-attention/issues/1310); backward over forward as on an H100.
# AMD        the best shapes reach 785 of 1307 TFLOP/s on an MI325X of 1000 W, 668 on an MI300X of 750 W, 1565 of 2517
#            on an MI355X of 1400 W (the same page). All else about AMD's cards is our judgment.
# context    the context alone is 256 MiB on an RTX 3090 (github.com/invoke-ai/InvokeAI/issues/9413), 426 MiB on an
#            RTX 6000 Ada (github.com/unslothai/unsloth-zoo/pull/1053), 300..400 MiB with lazily loaded kernels
#            (github.com/pytorch/pytorch/issues/107667 and 109888), 616 MiB on a data-center card
#            (github.com/LMCache/LMCache/issues/4019); cuBLAS and bitsandbytes load more as they are used.
_G = _Generation
_OLD, _GDDR, _FAST = (0.45, 0.35), (0.93, 0.86), (0.46, 0.40)
_AMD_HBM, _AMD_GDDR = (0.50, 0.35), (0.70, 0.50)
_CDNA_CONTEXT, _RDNA_CONTEXT = (0.30, 0.70, 1.60), (0.25, 0.60, 1.50)
_TABLE = {
    #                                          matrix watts vector attn stream cache kernel host
    "pascal": _G("Pascal", 0.80, 0.0, 0.92, _OLD, 0.75, 6, 4.0, (1.6, 1.9), (0.20, 0.32, 0.50)),
    "volta": _G("Volta", 0.72, 0.0, 0.92, _OLD, 0.80, 7, 3.5, 1.9, (0.25, 0.36, 0.55)),
    "turing": _G("Turing", 0.90, 4.0, 0.90, _OLD, 0.79, 11, 3.5, (1.4, 1.8), (0.15, 0.28, 0.50)),
    "ampere": _G("Ampere", 0.90, 2.6, 0.82, _GDDR, 0.84, 8, 3.0, (1.1, 1.55), (0.25, 0.38, 0.60)),
    "ampere hbm": _G("A100 and A30", 0.84, 0.8, 0.92, (0.82, 0.70), 0.82, 22, 3.0, 1.6, (0.40, 0.48, 0.70)),
    "ada": _G("Ada", 0.90, 2.0, 0.82, _GDDR, 0.85, 90, 2.5, (0.85, 1.4), (0.38, 0.49, 0.71)),
    "hopper": _G("Hopper", 0.74, 0.6, 0.82, _FAST, 0.82, 14, 2.5, 1.3, (0.48, 0.62, 0.85)),
    "hopper cut": _G("H20", 0.93, 0.0, 0.82, (0.61, 0.53), 0.82, 14, 2.5, 1.3, (0.48, 0.62, 0.85), (1.54, 1.54)),
    "blackwell": _G("Blackwell", 0.90, 2.0, 0.82, _GDDR, 0.86, 65, 2.5, (0.8, 1.1), (0.38, 0.58, 0.90)),
    "blackwell hbm": _G("B200 and GB200", 0.72, 0.4, 0.82, _FAST, 0.82, 16, 2.5, 1.1, (0.50, 0.75, 1.10)),
    "cdna2": _G("CDNA 2", 0.70, 0.0, 0.90, _AMD_HBM, 0.80, 5, 5.0, 1.9, _CDNA_CONTEXT),
    "cdna3": _G("CDNA 3", 0.60, 0.76, 0.50, _AMD_HBM, 0.76, 48, 5.0, 1.6, _CDNA_CONTEXT),
    "cdna4": _G("CDNA 4", 0.62, 0.55, 0.50, _AMD_HBM, 0.76, 33, 5.0, 1.4, _CDNA_CONTEXT),
    "rdna3": _G("RDNA 3", 0.70, 0.0, 0.45, _AMD_GDDR, 0.84, 90, 5.0, 1.2, _RDNA_CONTEXT),
    "rdna4": _G("RDNA 4", 0.70, 0.0, 0.45, _AMD_GDDR, 0.84, 90, 5.0, 1.0, _RDNA_CONTEXT),
    "": _G("unknown", 0.65, 0.0, 0.80, (0.6, 0.5), 0.78, 8, 3.5, (1.0, 1.4), (0.20, 0.50, 1.00)),
}

_BY_CAPABILITY = {
    "6.0": "pascal",
    "6.1": "pascal",
    "7.0": "volta",
    "7.2": "volta",
    "7.5": "turing",
    "8.0": "ampere",
    "8.6": "ampere",
    "8.7": "ampere",
    "8.9": "ada",
    "9.0": "hopper",
    "10.0": "blackwell",
    "10.3": "blackwell",
    "11.0": "blackwell",
    "12.0": "blackwell",
    "12.1": "blackwell",
}
_AMD = frozenset({"cdna2", "cdna3", "cdna4", "rdna3", "rdna4"})
_NAMES = frozenset(_BY_CAPABILITY.values()) | _AMD

_FEW = frozenset({"hopper cut", "blackwell", "blackwell hbm"})
_UNPUBLISHED = frozenset({"pascal", "turing", ""}) | _AMD
"""Classes for which we found few public figures, and hardly any."""

_HBM_RATIO = 10
"""The ratio of 16-bit matrix to fp32 operations from which an Ampere or Blackwell card is a data-center one, and a
Hopper card has its matrix units whole."""


def card_class(gpu: GpuSpec) -> str:
    """The row of the table that a card belongs to; '' when its generation is not known.

    Cards with HBM do 14 and more matrix operations per fp32 operation, all others of their generation at most 8; so
    does the H20, whose matrix units are cut.
    """
    generation = gpu.generation.lower()
    if generation not in _NAMES:
        generation = _BY_CAPABILITY.get(gpu.compute_capability, "")
    matrix = max(gpu.bf16_flop_per_s, gpu.fp16_flop_per_s)
    ratio = matrix / gpu.fp32_flop_per_s if gpu.fp32_flop_per_s else 0.0
    hbm = ratio > _HBM_RATIO and generation in ("ampere", "blackwell")
    if generation == "hopper" and 0 < ratio <= _HBM_RATIO:
        return "hopper cut"
    return f"{generation} hbm" if hbm else generation


HALF_LANES = frozenset({"pascal", "volta", "turing", "ampere hbm"})
"""Classes whose multiprocessors add 64 pairs of fp32 numbers a cycle; those of all others add 128. Of Pascal this is
true of the P100 alone."""

STRIDED_BYTES = 10
"""What DoRA's sum moves per element: a 16-bit weight, an fp32 update, an fp32 result."""


def strided_share(gpu: GpuSpec) -> float:
    """The fraction of peak bandwidth, at most 1, that a sum reaches when it reads one operand across its rows.

    Each element of that operand is in its own cache line, and a multiprocessor fetches one line per cycle: a limit
    only for cards with HBM. We assume that the lines' other elements are then found in the cache.
    """
    if not gpu.speed_known:
        return 1.0
    lanes = 64 if card_class(gpu) in HALF_LANES else 128
    elements_per_s = gpu.fp32_flop_per_s / (2 * lanes)
    return min(1.0, elements_per_s * STRIDED_BYTES / gpu.memory_bytes_per_s)


@lru_cache(maxsize=256)
def profile_for(gpu: GpuSpec) -> DeviceProfile:
    """The default profile of a card; wide intervals where its generation is not known or little was published."""
    key = card_class(gpu)
    row = _TABLE[key]
    device = UNPUBLISHED_SPREAD if key in _UNPUBLISHED else FEW_SPREAD if key in _FEW else SPREAD
    matrix = row.matrix * powered_share(gpu, row.watts_per_tflops)
    host = row.host if isinstance(row.host, float) else row.host["GeForce" not in gpu.name]
    return DeviceProfile(
        name=row.name,
        matrix_efficiency=matrix,
        vector_efficiency=row.vector,
        padding=(96.0, 96.0, 64.0),  # half a tile of 128 x 256, in either orientation; a few steps of 32 to fill
        vector_padding=(48.0, 48.0, 32.0),
        attention_forward=matrix * row.attention[0],
        attention_backward=matrix * row.attention[1],
        cudnn_attention=row.cudnn,
        efficient_attention=EFFICIENT_BEFORE_FLASH if key in BEFORE_FLASH else EFFICIENT_OVER_FLASH,
        attention_fp32=FP32_OVER_PRODUCT.get(key, (1.0, 1.0)),
        attention_padding_flop_per_byte=(40.0, 160.0),  # the A5000's and H100's rows above, of 512 to 8,192 tokens
        matmul_bandwidth=row.stream * 0.95,
        elementwise_bandwidth=row.stream,
        reduce_bandwidth=row.stream * 0.9,
        gather_bandwidth=row.stream * 0.8,
        strided_bandwidth=min(row.stream, strided_share(gpu)),
        optimizer_bandwidth=row.stream,
        dequantize_bandwidth=row.stream * 0.7,
        branching_dequantize=BRANCHING_RATE.get(key, 1.0),
        cache_bytes=row.cache_us * 1e-6 * gpu.memory_bytes_per_s,
        cache_speedup=3.0,
        kernel_s=row.kernel_us * 1e-6,
        forward_launch_s=host * FORWARD_LAUNCH_S,
        backward_launch_s=host * BACKWARD_LAUNCH_S,
        hook_s=host * HOOK_S,
        micro_step_s=1.5e-3,
        optimizer_step_s=1.0e-3,
        host_bytes_per_s=host_link(key),
        device_spread=device,
        launch_spread=LAUNCH_SPREAD,
        context_bytes=Interval(*(size * GIB for size in row.context_gib)),
        workspace_bytes=workspace_bytes(gpu),
        evidence=_evidence(gpu, key),
    )


def workspace_bytes(gpu: GpuSpec) -> int:
    """cuBLAS (or hipBLAS) workspaces of a training process: one for the forward's thread, one for autograd's.

    32 MiB each from Hopper on, 8 MiB + 128 KiB before; on AMD 128 MiB from CDNA 3 on, 32 MiB on all others. Source:
    PyTorch, aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize.
    """
    key = card_class(gpu)
    if key in ("cdna3", "cdna4"):
        return 2 * 128 * 1024**2
    if key in _AMD or key.startswith(("hopper", "blackwell")):
        return 2 * 32 * 1024**2
    return 2 * (4096 * 1024 * 2 + 16 * 1024 * 8)


def _evidence(gpu: GpuSpec, key: str) -> str:
    """One sentence on what the profile's numbers are based on."""
    if not key:
        return "no profile for this card's generation: cautious defaults, wide intervals; not measured on this card"
    known = "little published" if key in _UNPUBLISHED | _FEW else "from published benchmarks"
    text = (
        f"default profile of {_TABLE[key].name} cards ({known}); not measured on this card; public times of one "
        "run are up to 1.35 times apart"
    )
    if gpu.speed_known and gpu.bf16_flop_per_s == 0:
        text += "; it has no bfloat16 matrix units: bfloat16 products are estimated at the fp32 rate"
    return text
