"""Seconds of one kernel: its arithmetic and its memory traffic, at the rates that a card achieves."""

from __future__ import annotations

from advisor.costs.attention_rates import ATTENTION, Shares, attention_rates
from advisor.costs.dequantization import NESTED_RATE_OF_2023
from advisor.costs.device import DeviceProfile
from advisor.decoders.dequantized import BRANCHING, DEQUANTIZE, DEQUANTIZING, NESTED_OF_2023
from advisor.decoders.sdpa import prefers_cudnn
from advisor.errors import BadValue
from advisor.specs import GpuSpec
from advisor.tape.graph import BATCHED, MATMUL
from advisor.tape.program import Kernel

_UNCACHED = frozenset({*DEQUANTIZING, "optimizer"})


def peak_flop_per_s(gpu: GpuSpec) -> dict[str, float]:
    """The data sheet's rate of matrix products by dtype: that of the vector units where no matrix units support it.

    float32 products run outside the matrix units: torch.backends.cuda.matmul.allow_tf32 is off by default.
    """
    half = max(gpu.fp16_flop_per_s, gpu.bf16_flop_per_s) or gpu.fp32_flop_per_s
    return {
        "float32": gpu.fp32_flop_per_s,
        "bfloat16": gpu.bf16_flop_per_s or gpu.fp32_flop_per_s,  # emulated by cuBLAS
        "float16": gpu.fp16_flop_per_s or half,
        "int8": half,
    }


class Roofline:
    """A card's achieved rates, worked out once for many kernels."""

    __slots__ = (
        "_attention",
        "_bandwidth",
        "_batched_fp32",
        "_cache_bytes",
        "_cached",
        "_flop_per_s",
        "_padding",
        "_vector_padding",
        "fixed_s",
        "peaks",
    )

    def __init__(self, gpu: GpuSpec, profile: DeviceProfile) -> None:
        """Raises BadValue when the card's speed is not known."""
        if not gpu.speed_known:
            raise BadValue(f"the speed of {gpu.name}", "unknown", "give its bandwidth and FLOP/s in a GPU file")
        vector, matrix = profile.vector_efficiency, profile.matrix_efficiency
        self.peaks = peaks = peak_flop_per_s(gpu)
        half = matrix if gpu.fp16_flop_per_s or gpu.bf16_flop_per_s else vector
        self._flop_per_s = {
            "float32": peaks["float32"] * vector,
            "bfloat16": peaks["bfloat16"] * (matrix if gpu.bf16_flop_per_s else vector),
            "float16": peaks["float16"] * half,
            "int8": peaks["int8"] * half,
        }
        cudnn = prefers_cudnn(gpu.compute_capability) and not gpu.rocm
        self._attention = attention_rates(
            Shares(
                flash=(profile.attention_forward / matrix, profile.attention_backward / matrix),
                cudnn=profile.cudnn_attention if cudnn else (1.0, 1.0),
                cudnn_masked=profile.cudnn_masked_attention,
                efficient=profile.efficient_attention,
                sums_in_memory=profile.sums_in_memory,
                masked=profile.masked_attention,
                fp32=profile.attention_fp32,
                padding=profile.attention_padding_flop_per_byte,
            )
        )
        self._padding, self._vector_padding = profile.padding, profile.vector_padding
        self._batched_fp32 = profile.batched_fp32
        peak = gpu.memory_bytes_per_s
        self._bandwidth = {
            MATMUL: peak * profile.matmul_bandwidth,
            BATCHED: peak * profile.matmul_bandwidth,
            **dict.fromkeys(ATTENTION, peak * profile.matmul_bandwidth),
            "elementwise": peak * profile.elementwise_bandwidth,
            "reduce": peak * profile.reduce_bandwidth,
            "gather": peak * profile.gather_bandwidth,
            "strided": peak * profile.strided_bandwidth,
            "optimizer": peak * profile.optimizer_bandwidth,
            DEQUANTIZE: peak * profile.dequantize_bandwidth,
            BRANCHING: peak * profile.dequantize_bandwidth * profile.branching_dequantize,
            NESTED_OF_2023: peak * profile.dequantize_bandwidth * NESTED_RATE_OF_2023,
        }
        self._cache_bytes = profile.cache_bytes
        self._cached = 1 - 1 / profile.cache_speedup
        self.fixed_s = profile.kernel_s

    def copy_seconds(self, moved_bytes: float) -> float:
        """Of elementwise traffic that is too much for the cache."""
        return moved_bytes / self._bandwidth["elementwise"]

    def seconds(self, kernel: Kernel) -> tuple[float, float]:
        """(arithmetic, traffic) of one kernel in seconds; both only grow with every size.

        An elementwise kernel reads what the previous one has just written, so a part of its traffic runs at the cache's
        speed: cache * bytes / (cache + bytes), which is all of a small tensor and one cache's worth of a large one.
        """
        kind, dtype, flop, moved, (m, n, k) = kernel
        bandwidth = self._bandwidth[kind]
        if kind in (MATMUL, BATCHED):
            a, b, c = self._padding if dtype != "float32" else self._vector_padding
            padded = flop * (1 + a / m) * (1 + b / n) * (1 + c / k)
            rate = self._flop_per_s[dtype]
            if kind == BATCHED and dtype == "float32":
                rate *= self._batched_fp32
            return padded / rate, moved / bandwidth
        if kind in self._attention:
            share, fp32_share, padding = self._attention[kind]
            rate = self._flop_per_s[dtype] * (share if dtype != "float32" else fp32_share)
            return (flop + padding * moved) / rate, moved / bandwidth
        if kind in _UNCACHED:
            return 0.0, moved / bandwidth
        cache = self._cache_bytes
        from_cache = cache * moved / (cache + moved) if moved else 0.0
        return 0.0, (moved - self._cached * from_cache) / bandwidth
