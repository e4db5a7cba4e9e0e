"""Micro-benchmarks: what is timed is what the tape would have, by the conventions of the traced step."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from calibrate.nvml import WatchedCard
from calibrate.rates import Case, cases, kernels_of
from calibrate.worker import microbench
from calibrate.worker.device import CudaDevice
from calibrate.worker.kernels import cost_of
from calibrate.worker.microbench import measure, prepared
from tests.calibrate.fake_cuda import FakeCuda, fake_nvml

SMALL = [
    Case("product", "bfloat16", (24, 48, 16)),
    Case("product", "float32", (8, 16, 64)),
    Case("batched product", "float32", (3, 8, 16, 4)),
    Case("sum", "float32", (4, 64)),
    Case("activation", "bfloat16", (4, 64)),
    Case("cast", "bfloat16", (4, 64)),
    Case("strided sum", "float32", (64, 32)),
    Case("norm", "float32", (16, 64)),
    Case("softmax", "float32", (16, 64)),
    Case("rows", "bfloat16", (8, 32, 100)),
    Case("attention", "bfloat16", (1, 2, 64, 16)),
    Case("attention backward", "bfloat16", (1, 2, 64, 16)),
    Case("dequantize", "bfloat16", (64, 64)),
]


class Counter(TorchDispatchMode):
    """Sums what every dispatched operation costs."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.flop = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        cost = cost_of(func, args, kwargs or {}, out)
        self.kernels += cost.kernels
        self.flop += cost.flop
        self.bytes += cost.bytes
        return out


class Clock:
    """A device that takes what the wall clock says; `busy_s` more for each pair of marks."""

    place = "cpu"

    def __init__(self, kind: str = "cpu", busy_s: float = 0.0) -> None:
        self.kind, self._busy_s = kind, busy_s

    def synchronize(self) -> None:
        pass

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        return end - begin + self._busy_s


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case.op} {case.dtype}")
def test_a_case_costs_what_the_trace_would_count(case: Case) -> None:
    call = prepared(case, "cpu")
    with Counter() as counted:
        call()
    kernels = kernels_of(case, "cpu")
    assert sum(kernel[2] for kernel in kernels) == counted.flop
    assert sum(kernel[3] for kernel in kernels) == pytest.approx(counted.bytes, rel=0.05)
    assert len(kernels) == counted.kernels


def test_cuda_counts_the_ends_of_attention() -> None:
    (_, reduce, cast) = kernels_of(Case("attention backward", "bfloat16", (1, 2, 64, 16)), "cuda")
    count = 2 * 64 * 16
    assert reduce[3] == 2 * 2 * count + 4 * count
    assert cast[3] == 6 * count


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_operation_is_timed(kind: Any) -> None:
    found = list(cases(kind, "float16", True))
    assert {case.op for case in found} == set(microbench._MAKERS)
    assert "dequantize" not in {case.op for case in cases(kind, "float16", False)}
    assert len(found) < 100


def test_samples_are_kernels_with_seconds() -> None:
    found = list(measure(Clock(), SMALL[:3], 10.0))
    assert [one.kernels[0][0] for one in found] == ["matmul", "matmul", "batched matmul"]
    assert all(0 < one.seconds < 0.1 and not one.host_bound for one in found)


def test_a_card_that_waits_for_its_host_is_told_apart() -> None:
    (waiting,) = measure(Clock("cuda"), SMALL[3:4], 10.0)
    assert waiting.host_bound
    (working,) = measure(Clock("cuda", busy_s=0.02), SMALL[3:4], 10.0)
    assert not working.host_bound


def test_time_and_memory_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(measure(Clock(), SMALL, -1.0)) == []

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setitem(microbench._MAKERS, "product", full)
    assert [one.op for one in measure(Clock(), SMALL[:3], 10.0)] == ["batched product"]


def test_through_the_layer_of_a_card() -> None:
    device = CudaDevice(FakeCuda(), "cpu", WatchedCard(fake_nvml(), "card"))
    (one,) = measure(device, SMALL[:1], 10.0)
    assert one.seconds > 0
