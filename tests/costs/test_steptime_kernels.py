"""The time of one kernel on a card, and of a queue of stretches that card and CPU share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.gpus import find_gpus
from advisor.costs.device import profile_for
from advisor.costs.steptime import Roofline, queue_seconds
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


# -- one kernel -------------------------------------------------------------------------------------------------


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


# -- the queue --------------------------------------------------------------------------------------------------

LOADS = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([(5.0, 1.0)], 5.0),
        ([(1.0, 5.0)], 5.0),
        ([(5.0, 1.0), (1.0, 3.0)], 6.0),  # the CPU ran ahead while the card was busy
        ([(1.0, 5.0), (5.0, 1.0)], 10.0),  # the card had to wait for the second stretch
    ],
)
def test_the_card_waits_for_the_cpu_and_not_the_other_way(loads: list[tuple[float, float]], expected: float) -> None:
    assert queue_seconds(loads) == expected


@given(LOADS, st.integers(0, 7), st.floats(0, 1))
def test_the_queue_is_bounded_and_more_work_is_never_faster(
    loads: list[tuple[float, float]], index: int, extra: float
) -> None:
    card_s, cpu_s = sum(a for a, _ in loads), sum(b for _, b in loads)
    total = queue_seconds(loads)
    assert max(card_s, cpu_s) - 1e-9 <= total <= card_s + cpu_s + 1e-9
    more = list(loads)
    a, b = more[index % len(loads)]
    more[index % len(loads)] = (a + extra, b)
    assert total <= queue_seconds(more) + 1e-9 <= total + extra + 2e-9
