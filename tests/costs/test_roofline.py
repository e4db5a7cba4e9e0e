from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.gpus import find_gpus
from advisor.costs.device import profile_for
from advisor.costs.roofline import Roofline
from advisor.specs import GpuSpec
from advisor.tape.program import Kernel


def card(name: str) -> GpuSpec:
    (found,) = find_gpus(name)
    return found


A100, T4, L40S = card("NVIDIA A100-SXM4-80GB"), card("Tesla T4"), card("NVIDIA L40S")


def product(m: int, n: int, k: int, dtype: str = "bfloat16") -> Kernel:
    size = 4 if dtype == "float32" else 2
    return ("matmul", dtype, 2.0 * m * n * k, float(size * (m * n + n * k + m * k)), (m, n, k))


def moved(size: float, kind: str = "elementwise") -> Kernel:
    return (kind, "bfloat16", 0.0, size, (0, 0, 0))


def seconds(kernel: Kernel, gpu: GpuSpec = A100) -> float:
    roofline = Roofline(gpu, profile_for(gpu))
    return roofline.fixed_s + max(roofline.seconds(kernel))


def test_large_products_come_near_the_published_best() -> None:
    # 271 TFLOP/s is the best of any shape on an A100 SXM, 794 on an H100 SXM (stas00/ml-engineering).
    for gpu, best in ((A100, 271e12), (card("NVIDIA H100 80GB HBM3"), 794e12)):
        achieved = 2 * 8192**3 / seconds(product(8192, 8192, 8192), gpu)
        assert 0.8 * best < achieved < best


def test_a_thin_product_wastes_the_matrix_units() -> None:
    wide, thin = product(4096, 4096, 4096), product(4096, 16, 4096)
    assert thin[2] / seconds(thin) < 0.2 * wide[2] / seconds(wide)


def test_fp32_products_run_at_the_fp32_rate_and_not_at_tf32() -> None:
    achieved = 2 * 8192**3 / seconds(product(8192, 8192, 8192, "float32"))
    assert 0.6 * A100.fp32_flop_per_s < achieved < A100.fp32_flop_per_s


def test_bfloat16_on_a_card_without_it_is_as_slow_as_fp32() -> None:
    rates = {d: 2 * 4096**3 / seconds(product(4096, 4096, 4096, d), T4) for d in ("bfloat16", "float32", "float16")}
    assert rates["bfloat16"] == pytest.approx(rates["float32"], rel=0.04)
    assert rates["float16"] > 3 * rates["float32"]


def attention(gpu: GpuSpec, kind: str, width: int, dtype: str = "float16") -> float:
    """TFLOP/s of one row of 8,192 tokens and 8 heads, the whole square."""
    size, scores = (4 if dtype == "float32" else 2), 8 * 8192**2
    flop, one = 4.0 * scores * width, float(size * 8 * 8192 * width)
    backward = "backward" in kind
    flop, moved = (flop * 2.5, 8 * one) if backward else (flop, 4 * one)
    return flop / seconds((kind, dtype, flop, moved, (0, 0, 0)), gpu) / 1e12


def test_memory_efficient_attention_comes_near_published_rates() -> None:
    a100, v100 = A100, card("Tesla V100-SXM2-32GB")
    for gpu, kind, width, dtype, published in (
        (a100, "efficient attention", 128, "float16", 101),  # facebookresearch/xformers, issue 712
        (a100, "efficient attention backward", 128, "float16", 81),  # NVIDIA/cutlass, pull request 992, with a bias
        (a100, "efficient attention", 128, "float32", 23),  # facebookresearch/xformers, issue 712
        (a100, "efficient attention backward", 128, "float32", 14.7),  # the same project, pull request 587
        (v100, "efficient attention", 128, "float16", 33.6),
        (v100, "efficient attention", 64, "float32", 9.7),
    ):
        assert attention(gpu, kind, width, dtype) == pytest.approx(published, rel=0.25), (kind, dtype, published)


def test_cudnns_attention_comes_near_published_rates_where_it_is_preferred() -> None:
    h100 = card("NVIDIA H100 80GB HBM3")
    assert attention(h100, "attention", 128) == pytest.approx(610, rel=0.15)  # Shah et al. 2024, figure 5
    assert attention(h100, "flash attention", 128) == pytest.approx(370, rel=0.15)
    for gpu in (A100, card("NVIDIA GeForce RTX 5090"), card("AMD Instinct MI300X")):
        assert attention(gpu, "attention", 128) == attention(gpu, "flash attention", 128)


def step_rate(gpu: GpuSpec, kinds: tuple[str, str], width: int, dtype: str) -> float:
    """TFLOP/s of a forward, its recomputation and a backward."""
    once, back = (attention(gpu, kind, width, dtype) for kind in kinds)
    return 4.5 / (2 / once + 2.5 / back)


def test_masked_attention_lies_in_the_ranges_of_public_steps() -> None:
    """The rates that public training steps leave for masked attention, each known to 20 %."""
    forward, backward = "masked attention", "masked attention backward"
    in_memory = f"{backward}, sums in memory"
    h100, pro = card("NVIDIA H100 80GB HBM3"), card("NVIDIA RTX PRO 6000 Blackwell Workstation Edition")
    for gpu, kind, width, dtype, low, high in (
        (A100, backward, 128, "bfloat16", 59, 66),
        (h100, backward, 128, "bfloat16", 87, 118),
        (pro, in_memory, 128, "bfloat16", 42, 46),
        (A100, in_memory, 256, "bfloat16", 59 * 0.5, 66 * 0.9),
        (h100, in_memory, 256, "bfloat16", 87 * 0.5, 118 * 0.9),
        (h100, backward, 128, "float32", 13, 13),
    ):
        assert low * 0.8 < step_rate(gpu, (forward, kind), width, dtype) < high * 1.2, (gpu.name, width, dtype)


def test_wide_heads_slow_the_memory_efficient_backward_down() -> None:
    slow = "efficient attention backward, sums in memory"
    published = (36, 42)  # an RTX 5090 for heads of 512 (xlite-dev/ffpa-attn, issue 235)
    assert published[0] * 0.7 < attention(card("NVIDIA GeForce RTX 5090"), slow, 512) < published[1] * 1.3


def test_each_coefficient_of_attention_moves_its_own_kernels() -> None:
    before = profile_for(A100)
    tflop = 1e12
    kernels: dict[str, Kernel] = {
        "efficient_attention": ("efficient attention", "bfloat16", tflop, 1.0, (0, 0, 0)),
        "cudnn_masked_attention": ("cudnn attention", "bfloat16", tflop, 1.0, (0, 0, 0)),
        "sums_in_memory": ("efficient attention backward, sums in memory", "float16", tflop, 1.0, (0, 0, 0)),
        "attention_fp32": ("efficient attention", "float32", tflop, 1.0, (0, 0, 0)),
        "batched_fp32": ("batched matmul", "float32", tflop, 1.0, (4096, 4096, 4096)),
        "": product(4096, 4096, 4096, "float32"),
    }
    for moved_field in filter(None, kernels):
        value = getattr(before, moved_field)
        halved = value / 2 if isinstance(value, float) else tuple(one / 2 for one in value)
        after = Roofline(A100, before.model_copy(update={moved_field: halved}))
        for field, kernel in kernels.items():
            ratio = after.seconds(kernel)[0] / Roofline(A100, before).seconds(kernel)[0]
            follows = field == moved_field or (moved_field, field) == ("efficient_attention", "sums_in_memory")
            assert ratio == pytest.approx(2.0 if follows else 1.0), (moved_field, field)


def test_older_bitsandbytes_dequantizes_as_much_slower_as_was_measured() -> None:
    rows = ((A100, 1.36, 2.07), (card("NVIDIA H100 80GB HBM3"), 1.36, 2.07), (T4, 1.25, 1.8), (L40S, 0.99, 1.01))
    for gpu, least, most in rows:
        before, today = (seconds(moved(1e9, kind), gpu) for kind in ("dequantize before 0.48", "dequantize"))
        assert least < before / today < most


def test_large_traffic_runs_below_peak_bandwidth_and_small_traffic_at_a_fixed_cost() -> None:
    assert 0.7 * A100.memory_bytes_per_s < 1e10 / seconds(moved(1e10)) < A100.memory_bytes_per_s
    assert seconds(moved(100)) == pytest.approx(profile_for(A100).kernel_s, rel=0.01)


def test_a_tensor_that_fits_the_cache_moves_faster_than_a_large_one() -> None:
    fixed = profile_for(L40S).kernel_s
    assert 1e7 / (seconds(moved(1e7), L40S) - fixed) > 1.5 * 1e10 / (seconds(moved(1e10), L40S) - fixed)


SIZES = st.integers(1, 300_000)


@given(SIZES, SIZES, SIZES, st.sampled_from([0, 1, 2]), st.sampled_from(["bfloat16", "float32"]))
def test_a_larger_product_is_never_faster_and_there_is_no_jump(m: int, n: int, k: int, axis: int, dtype: str) -> None:
    sizes = [m, n, k]
    sizes[axis] += 1
    before, after = seconds(product(m, n, k, dtype)), seconds(product(*sizes, dtype))
    assert before <= after
    assert after <= before * (1 + 1 / [m, n, k][axis]) * (1 + 1e-9)


@given(st.floats(1, 1e12), st.sampled_from(["elementwise", "reduce", "gather", "dequantize"]))
def test_more_traffic_is_never_faster_and_there_is_no_jump(size: float, kind: str) -> None:
    before, after = seconds(moved(size, kind)), seconds(moved(size * 1.001, kind))
    assert before <= after <= before * 1.0015  # the part that leaves the cache runs slower
