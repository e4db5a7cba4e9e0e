"""Attention as data: which cases there are, what they stand for on the tape, and what a record may hold."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from advisor.decoders.fused import CUDNN_MASKED, EFFICIENT, IN_MEMORY
from advisor.tape.graph import BATCHED
from calibrate.attention_rates import (
    KERNELS,
    TOKENS,
    WIDTHS,
    AttentionCase,
    AttentionSample,
    Dtype,
    attention_cases,
    attention_times,
    lower_quartile,
    stands_for_flash,
    taped_kernels,
    waits_for_host,
)
from tests.calibrate.made_up import CPU, gpu

SIZE = (2, 4, 256, 64)


def case(kernel: str, masked: bool = False, dtype: Dtype = "bfloat16", width: int = 64) -> AttentionCase:
    return AttentionCase(kernel, masked, dtype, (2, 4, 256, width))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_kernel_mask_dtype_and_width_at_two_lengths(kind: str) -> None:
    found = list(attention_cases(kind))  # type: ignore[arg-type]
    assert len(found) == len(set(found)) == len(KERNELS) * 2 * 3 * len(WIDTHS) * len(TOKENS["cpu"])
    assert {one.size[-1] for one in found} == {64, 96, 128, 256}
    half = len(found) // 2
    assert max(one.size[2] for one in found[:half]) < max(one.size[2] for one in found[half:])


def test_a_mask_doubles_the_pairs() -> None:
    (plain,), (masked, *_) = taped_kernels(case("flash"), "cuda", "8.0")[0], taped_kernels(case("flash"), "cuda", "")[1]
    assert plain[:3] == ("flash attention", "bfloat16", 4 * 2 * 4 * 64 * 256 * 257 // 2)
    assert masked[2] == plain[2] * 2.5
    *_, square = taped_kernels(case("efficient", masked=True), "cuda", "8.0")[0]
    assert square[2] == pytest.approx(2 * plain[2], rel=0.01)


def test_kernels_are_those_that_the_decoder_records() -> None:
    forward, backward = taped_kernels(case("cudnn", masked=True), "cuda", "9.0")
    assert forward[-1][0] == CUDNN_MASKED[0]
    assert CUDNN_MASKED[1] in {kernel[0] for kernel in backward}
    kinds = {
        capability: {kernel[0] for kernel in taped_kernels(case("efficient", width=128), "cuda", capability)[1]}
        for capability in ("8.0", "8.6")
    }
    assert EFFICIENT[1] in kinds["8.0"]
    assert IN_MEMORY in kinds["8.6"]
    products = [[kernel for kernel in part if kernel[0] == BATCHED] for part in taped_kernels(case("math"), "cuda", "")]
    assert [len(part) for part in products] == [2, 4]
    assert {kernel[1] for part in products for kernel in part} == {"float32"}


@pytest.mark.parametrize(
    ("kernel", "width", "dtype", "capability", "stands"),
    [
        ("flash", 128, "bfloat16", "8.0", True),
        ("cudnn", 128, "bfloat16", "8.0", False),
        ("flash", 128, "bfloat16", "9.0", True),
        ("cudnn", 128, "bfloat16", "9.0", True),
        ("flash", 256, "bfloat16", "9.0", True),
        ("efficient", 128, "float32", "8.0", False),
        ("flash", 64, "float16", "", True),
    ],
)
def test_flash_is_itself_or_what_the_card_prefers(
    kernel: str, width: int, dtype: Dtype, capability: str, stands: bool
) -> None:
    assert stands_for_flash(case(kernel, dtype=dtype, width=width), capability) is stands
    assert not stands_for_flash(case(kernel, True, dtype, width), capability)


def test_times_are_the_lower_quartile_of_what_ran() -> None:
    ran = AttentionSample(
        **case("flash")._asdict(), forward_s=(4e-3, 1e-3, 2e-3, 3e-3), backward_s=(5e-3,), forward_host_s=2e-3
    )
    no = AttentionSample(**case("cudnn")._asdict(), refused="takes no mask")
    forward, backward = attention_times([no, ran], gpu())
    assert forward.case == backward.case == case("flash")
    assert (forward.backward, backward.backward) == (False, True)
    assert forward.seconds == lower_quartile(ran.forward_s) == pytest.approx(1.25e-3)
    assert backward.seconds == 5e-3
    assert forward.host_bound
    assert not backward.host_bound
    assert not any(one.host_bound for one in attention_times([ran], CPU))


def test_a_card_waits_for_a_host_that_takes_most_of_the_time() -> None:
    assert waits_for_host("cuda", 1.0, 0.8)
    assert not waits_for_host("cuda", 1.0, 0.6)
    assert not waits_for_host("cpu", 1.0, 1.0)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"forward_s": (1e-3,)},
        {"forward_s": (1e-3,), "backward_s": (1e-3,), "refused": "why"},
        {"forward_s": (0.0,), "backward_s": (1e-3,)},
        {"forward_s": (1e-3,) * 21, "backward_s": (1e-3,)},
        {"refused": "why", "size": (0, 1, 1, 1)},
        {"refused": "why", "kernel": "fast"},
    ],
)
def test_what_no_device_can_have_measured_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AttentionSample.model_validate(case("flash")._asdict() | bad)
