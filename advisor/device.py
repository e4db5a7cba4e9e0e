"""What a card achieves of its data sheet: efficiencies, launch costs, and the memory that CUDA takes for itself.

A `DeviceProfile` holds numbers and no formula; `advisor.steptime` and `advisor.estimation` hold the formulas. These are
defaults per generation, set from public benchmarks and not fitted to any training run: their spread says how far a
card, a host or a library version may be from them. A calibration on the card itself replaces them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, NamedTuple

from advisor.frozen import Frozen, Range
from advisor.interval import Interval
from advisor.specs import GpuSpec

GIB = 2**30
Fraction = Annotated[float, Range(0, 1, open_low=True)]
Positive = Annotated[float, Range(0, open_low=True)]


class DeviceProfile(Frozen):
    """Achieved rates as fractions of the data sheet, fixed costs in seconds, overheads in bytes."""

    name: str  # class of cards that the numbers stand for

    matrix_efficiency: Fraction  # of the 16-bit matrix peak, for a large product
    vector_efficiency: Fraction  # of the fp32 peak, for a large fp32 product (no TF32)
    # a product of (m, n, k) takes the time of (m + a, n + b, k + c): tiles half filled, the pipe empty
    padding: tuple[float, float, float]
    attention_efficiency: Fraction  # of the 16-bit matrix peak, fused attention on long rows
    attention_padding_flop_per_byte: Positive  # extra work per byte of q, k, v: half tiles

    matmul_bandwidth: Fraction  # of peak bandwidth, operands of a matrix product
    elementwise_bandwidth: Fraction
    reduce_bandwidth: Fraction
    gather_bandwidth: Fraction
    dequantize_bandwidth: Fraction  # 4-bit and 8-bit weights to 16 bits, in bitsandbytes' kernels
    cache_bytes: Annotated[float, Range(0)]  # level-2 cache, which serves what was just written
    cache_speedup: Annotated[float, Range(1)]  # bandwidth of that cache over the memory's

    kernel_s: Positive  # time on the card of a kernel with no work: start, tail and gap
    launch_s: Positive  # CPU time per kernel of eager PyTorch below transformers and peft
    micro_step_s: Positive  # CPU time per micro-step outside the model: loader, copies, a sync
    optimizer_step_s: Positive  # CPU time per optimizer step: schedule, logging, callbacks
    link_bytes_per_s: Interval  # what a ring of cards moves, PCIe to NVLink
    device_spread: Interval  # time on the card over the predicted time
    launch_spread: Interval  # time on the CPU over the predicted time

    context_bytes: Interval  # CUDA context and loaded kernels, outside PyTorch's allocator
    workspace_bytes: Annotated[int, Range(0)]  # cuBLAS workspaces, inside PyTorch's allocator
    evidence: str


class _Generation(NamedTuple):
    """What sets one class of cards apart. Times in microseconds, context in GiB, as sources print them."""

    name: str
    matrix: float
    attention: float
    stream: float
    cache_us: float
    kernel_us: float
    launch_us: float
    link_gb_per_s: tuple[float, float, float]
    context_gib: tuple[float, float, float]


_PCIE3 = (4.0, 8.0, 12.0)
_PCIE4 = (8.0, 15.0, 24.0)
_PCIE5 = (15.0, 30.0, 48.0)

# matrix     limit for large products, over the dense peak with fp32 accumulation. The best shapes reach 271 of
#            312 TFLOP/s on an A100 SXM, 253 on a PCIe one, 794 of 989 on an H100 SXM, 1745 of 2250 on a B200
#            (github.com/stas00/ml-engineering, compute/accelerator/README.md); ordinary shapes a tenth less.
#            GeForce-like cards run their halved matrix units at full clock: an L20 gives 105..115 of 119.5
#            (github.com/DefTruth/CUDA-Learn-Notes, hgemm). Full-rate cards of 70 to 350 W (T4, L4, A10, L40S) meet
#            their power limit first: our judgement, nothing measured.
# attention  FlashAttention 2: at best 0.73 of peak forward and 0.63 backward on an A100, 335 TFLOP/s (0.34) on an
#            H100 (Dao 2023, arXiv:2307.08691, section 4), less with a causal mask. Before Ampere PyTorch falls back
#            to memory-efficient kernels: our judgement.
# stream     large elementwise kernels over peak bandwidth: our judgement, as copies reach 0.85..0.93.
# cache_us   level-2 cache as microseconds of memory traffic: A100 40 MB / 1.56..2.0 TB/s, H100 50 MB / 3.35,
#            RTX 4090 72 MB / 1.0, L40S 96 MB / 0.86, RTX 3090 6 MB / 0.94, V100 6 MB / 0.9 (NVIDIA's white papers).
# kernel_us  an empty kernel in a full queue, with the gap to the next: our judgement.
# launch_us  CPU time, mean of the forward (Python) and the C++ autograd engine: our judgement; one matrix product
#            alone takes 15 us of CPU time from Python (github.com/pytorch/pytorch/pull/194311). The host that comes
#            with a card is as old as the card.
# link       ring all-reduce, GB/s per card: low without, high with NVLink where the generation has it.
# context    the context alone is 256 MiB on an RTX 3090 (github.com/invoke-ai/InvokeAI/issues/9413), 426 MiB on an
#            RTX 6000 Ada (github.com/unslothai/unsloth-zoo/pull/1053), 300..400 MiB with lazily loaded kernels
#            (github.com/pytorch/pytorch/issues/107667 and 109888), 616 MiB on a data-centre card
#            (github.com/LMCache/LMCache/issues/4019); cuBLAS and bitsandbytes load more as they are used.
_G = _Generation
_TABLE = {
    #                                          matrix attn stream cache kernel launch
    "pascal": _G("Pascal", 0.80, 0.30, 0.75, 6, 4.0, 14, _PCIE3, (0.20, 0.32, 0.50)),
    "volta": _G("Volta", 0.72, 0.25, 0.80, 7, 3.5, 13, (8, 60, 120), (0.25, 0.36, 0.55)),
    "turing": _G("Turing GeForce", 0.80, 0.35, 0.80, 10, 3.5, 12, _PCIE3, (0.15, 0.28, 0.50)),
    "turing full": _G("Turing workstation and T4", 0.45, 0.22, 0.78, 12, 3.5, 13, _PCIE3, (0.15, 0.28, 0.50)),
    "ampere": _G("Ampere GeForce", 0.90, 0.60, 0.85, 7, 3.0, 10, _PCIE4, (0.25, 0.38, 0.60)),
    "ampere full": _G("Ampere workstation", 0.64, 0.45, 0.83, 9, 3.0, 11, _PCIE4, (0.25, 0.38, 0.60)),
    "ampere hbm": _G("A100 and A30", 0.84, 0.52, 0.82, 22, 3.0, 11, (15, 150, 240), (0.40, 0.48, 0.70)),
    "ada": _G("Ada GeForce", 0.92, 0.68, 0.87, 80, 2.5, 8, _PCIE4, (0.38, 0.48, 0.70)),
    "ada full": _G("Ada workstation", 0.60, 0.42, 0.83, 100, 2.5, 9, _PCIE4, (0.40, 0.50, 0.72)),
    "hopper": _G("Hopper", 0.74, 0.36, 0.82, 14, 2.5, 9, (30, 280, 400), (0.48, 0.62, 0.85)),
    "blackwell": _G("Blackwell GeForce", 0.90, 0.60, 0.87, 60, 2.5, 8, _PCIE5, (0.38, 0.58, 0.90)),
    "blackwell full": _G("Blackwell workstation", 0.64, 0.42, 0.85, 75, 2.5, 8, _PCIE5, (0.38, 0.58, 0.90)),
    "blackwell hbm": _G("Blackwell data-centre", 0.72, 0.35, 0.82, 16, 2.5, 8, (60, 500, 800), (0.50, 0.75, 1.10)),
    "": _G("unknown", 0.60, 0.35, 0.78, 8, 3.5, 11, _PCIE3, (0.20, 0.50, 1.00)),
}  # fmt: skip

_BY_CAPABILITY = {
    "6.0": "pascal", "6.1": "pascal", "7.0": "volta", "7.2": "volta", "7.5": "turing", "8.0": "ampere", "8.6": "ampere",
    "8.7": "ampere", "8.9": "ada", "9.0": "hopper", "10.0": "blackwell", "10.3": "blackwell", "12.0": "blackwell",
    "12.1": "blackwell",
}  # fmt: skip
_NAMES = frozenset(_BY_CAPABILITY.values())

_UNMEASURED = frozenset({"blackwell", "blackwell full", "blackwell hbm", "pascal", "turing full", ""})
"""Classes for which we found few public figures."""


def card_class(gpu: GpuSpec) -> str:
    """The row of the table that a card belongs to; '' when its generation is not known.

    GeForce cards, workstation cards and data-centre cards of one generation differ in how many matrix operations
    they do per fp32 operation: 2 (Turing 4), 4 (Turing 8), and 15 or more.
    """
    generation = gpu.generation.lower()
    if generation not in _NAMES:
        generation = _BY_CAPABILITY.get(gpu.compute_capability, "")
    matrix = max(gpu.bf16_flop_per_s, gpu.fp16_flop_per_s)
    ratio = matrix / gpu.fp32_flop_per_s if gpu.fp32_flop_per_s else 0.0
    if generation == "turing":
        return "turing full" if ratio > 6 else "turing"
    if generation not in ("ampere", "ada", "blackwell"):
        return generation
    if ratio > 10 and generation != "ada":
        return f"{generation} hbm"
    return f"{generation} full" if ratio > 3 else generation


@lru_cache(maxsize=256)
def profile_for(gpu: GpuSpec) -> DeviceProfile:
    """The default profile of a card; wide intervals where its generation is not known or little was published."""
    key = card_class(gpu)
    row = _TABLE[key]
    device = Interval(0.75, 1.0, 1.35) if key not in _UNMEASURED else Interval(0.65, 1.0, 1.6)
    return DeviceProfile(
        name=row.name,
        matrix_efficiency=row.matrix,
        vector_efficiency=0.75,
        padding=(96.0, 96.0, 64.0),  # half a tile of 128 x 256, as it may lie either way; a few steps of 32 to fill,
        attention_efficiency=row.attention,
        attention_padding_flop_per_byte=40.0,
        matmul_bandwidth=row.stream * 0.95,
        elementwise_bandwidth=row.stream,
        reduce_bandwidth=row.stream * 0.9,
        gather_bandwidth=row.stream * 0.8,
        dequantize_bandwidth=row.stream * 0.7,
        cache_bytes=row.cache_us * 1e-6 * gpu.memory_bytes_per_s,
        cache_speedup=3.0,
        kernel_s=row.kernel_us * 1e-6,
        launch_s=row.launch_us * 1e-6,
        micro_step_s=1.5e-3,
        optimizer_step_s=1.0e-3,
        link_bytes_per_s=Interval(*(rate * 1e9 for rate in row.link_gb_per_s)),
        device_spread=device,
        launch_spread=Interval(0.6, 1.0, 1.7),
        context_bytes=Interval(*(size * GIB for size in row.context_gib)),
        workspace_bytes=workspace_bytes(gpu),
        evidence=_evidence(gpu, key),
    )


def workspace_bytes(gpu: GpuSpec) -> int:
    """cuBLAS workspaces of a training process: one for the forward's thread, one for the autograd engine's.

    32 MiB each from Hopper on, 8 MiB + 128 KiB before. Source: PyTorch, aten/src/ATen/cuda/CublasHandlePool.cpp,
    parseChosenWorkspaceSize.
    """
    recent = _TABLE[card_class(gpu)].name.startswith(("Hopper", "Blackwell"))
    return 2 * (4096 * 8 * 1024 if recent else 4096 * 1024 * 2 + 16 * 1024 * 8)


def _evidence(gpu: GpuSpec, key: str) -> str:
    """One sentence on what the profile's numbers stand on."""
    if not key:
        return "no profile for this card's generation: cautious defaults, wide intervals; not measured on this card"
    known = "little published" if key in _UNMEASURED else "from published benchmarks"
    text = f"default profile of {_TABLE[key].name} cards ({known}); not measured on this card"
    if gpu.bf16_flop_per_s == 0:
        text += "; it has no bfloat16 matrix units: bfloat16 products are taken at the fp32 rate"
    return text
