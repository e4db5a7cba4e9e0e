"""Attention is timed with the kernel that was asked for; what PyTorch refuses is recorded in its own words."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel

from calibrate.attention_rates import AttentionCase, AttentionSample, Dtype, taped_kernels
from calibrate.nvml import WatchedCard
from calibrate.worker.attention_bench import BACKENDS, attention_calls, measure_attention
from calibrate.worker.device import CpuDevice, CudaDevice
from tests.calibrate.fake_cuda import FakeCuda, fake_nvml
from tests.calibrate.worker.test_microbench import Counter


def case(kernel: str, masked: bool = False, dtype: Dtype = "bfloat16") -> AttentionCase:
    return AttentionCase(kernel, masked, dtype, (2, 2, 64, 16))  # type: ignore[arg-type]


def measured(one: AttentionCase) -> AttentionSample:
    (found,) = measure_attention(CpuDevice(), [one], 10.0)
    return found


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("masked", [False, True], ids=["causal", "masked"])
@pytest.mark.parametrize("kernel", ["flash", "math"])
def test_a_case_costs_what_the_tape_says(kernel: str, masked: bool, dtype: Dtype) -> None:
    one = case(kernel, masked, dtype)
    with sdpa_kernel(BACKENDS[one.kernel]):
        forward, backward = attention_calls(one, "cpu")
        for call, kernels in zip((forward, backward), taped_kernels(one, "cpu", ""), strict=True):
            with Counter() as counted:
                call()
            assert sum(kernel[2] for kernel in kernels) == counted.flop
            assert sum(kernel[3] for kernel in kernels) == pytest.approx(counted.bytes, rel=0.1)


@pytest.mark.parametrize("kernel", ["flash", "math"])
def test_the_kernel_is_the_one_that_was_asked_for(kernel: Any) -> None:
    with sdpa_kernel(BACKENDS[kernel]):
        out = attention_calls(case(kernel), "cpu")[0]()
    assert ("FlashAttention" in type(out.grad_fn).__name__) is (kernel == "flash")


def test_raw_times_are_kept() -> None:
    found = measured(case("flash", dtype="float32"))
    assert found.refused == ""
    assert 3 <= len(found.forward_s) <= 20
    assert 3 <= len(found.backward_s) <= 20
    assert AttentionSample.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("kernel", ["cudnn", "efficient"])
def test_a_cpu_refuses_the_kernels_of_a_card(kernel: str) -> None:
    found = measured(case(kernel))
    assert found.forward_s == found.backward_s == ()
    assert found.refused.startswith("No viable backend for scaled_dot_product_attention was found")


def test_the_reason_is_what_pytorch_warns_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def aborting(*_: Any, **__: Any) -> Any:
        for words in (
            "Memory efficient kernel not used because: (Triggered internally at sdp_utils.cpp:1.)",
            "Memory Efficient attention has been runtime disabled. (Triggered internally at sdp_utils.h:2.)",
            "Flash attention kernel not used because: (Triggered internally at sdp_utils.cpp:3.)",
            "Flash Attention does not support\n  non-null attn_mask. (Triggered internally at sdp_utils.cpp:4.)",
        ):
            warnings.warn(words, stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(F, "scaled_dot_product_attention", aborting)
    assert measured(case("flash", masked=True)).refused == "Flash Attention does not support non-null attn_mask."


def raising(error: Exception) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def test_too_little_memory_is_a_refusal_and_a_broken_card_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "scaled_dot_product_attention", raising(torch.OutOfMemoryError("16 GiB")))
    assert measured(case("math")).refused == "out of memory"
    monkeypatch.setattr(F, "scaled_dot_product_attention", raising(torch.AcceleratorError("illegal access")))
    with pytest.raises(torch.AcceleratorError):
        measured(case("math"))


def test_time_ends_it() -> None:
    assert list(measure_attention(CpuDevice(), [case("flash")], -1.0)) == []


def test_through_the_layer_of_a_card() -> None:
    device = CudaDevice(FakeCuda(), "cpu", WatchedCard(fake_nvml(), "card"))
    (one,) = measure_attention(device, [case("flash")], 10.0)
    assert one.forward_s
    assert one.forward_host_s > 0
