"""The causal convolution by causal-conv1d: what its autograd function keeps and makes, counted by hand.

PyTorch's own is compared with the traced step of LFM2 in test_against_trace.
"""

from __future__ import annotations

from itertools import accumulate

import pytest

from advisor.decoders.convolution import causal_convolution
from advisor.tape.engine import run_backward
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

BATCH, LENGTH, CHANNELS, TAPS = 2, 8, 16, 3
X_BYTES, SUMS_BYTES = 2 * BATCH * LENGTH * CHANNELS, 4 * CHANNELS * TAPS


def held(t: Tape) -> list[int]:
    sizes = list(t.slots)
    return list(accumulate((-sizes[e >> 3] if e % 2 else sizes[e >> 3] for e in t.events), initial=0))


@pytest.mark.parametrize(("dtype", "trained"), [("bfloat16", False), ("float32", False), ("float32", True)])
def test_the_fused_kernel_works_in_the_dtype_of_its_input_and_always_sums_the_weights_gradient(
    dtype: str, trained: bool
) -> None:
    t = Tape("cuda", "bfloat16")
    x = t.empty((BATCH, LENGTH, CHANNELS), "bfloat16")
    x.needs_grad = True
    weight = Tensor((CHANNELS, 1, TAPS), dtype, needs_grad=trained)
    out = causal_convolution(t, x, weight, None, fused=True)
    assert out.dtype == "bfloat16"
    assert held(t)[-1] == 2 * X_BYTES  # its input and its output: nothing is cast, nothing else is kept
    before = len(t.events)
    run_backward(t, out, t.empty(out.shape, out.dtype))
    cast_bytes = 0 if dtype == "float32" else SUMS_BYTES // 2
    assert max(held(t)[before:]) == 4 * X_BYTES + SUMS_BYTES + cast_bytes
    assert (weight.grad is not None) == trained


def test_flop_are_those_of_the_taps_three_times() -> None:
    for fused, rows in ((True, LENGTH), (False, LENGTH + TAPS - 1)):
        t = Tape("cuda", "")
        x = t.empty((BATCH, LENGTH, CHANNELS), "float32")
        x.needs_grad = True
        out = causal_convolution(t, x, Tensor((CHANNELS, 1, TAPS), "float32", needs_grad=True), None, fused)
        run_backward(t, out, t.empty(out.shape, out.dtype))
        assert sum(kernel[2] for kernel in t.kernels) == 3 * 2 * TAPS * BATCH * rows * CHANNELS
