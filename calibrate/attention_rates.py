"""Micro-benchmarks of attention as data: by kernel, mask, dtype and width of heads. Needs no torch.

A case forces one kernel of `scaled_dot_product_attention`; what the device refuses is recorded with PyTorch's reason.
A sample keeps the raw times of forward and backward. Which kernels of the formula they stand for is read off a tape of
the same call, so that the formula predicts exactly what was timed.

Ignores: grouped keys, dropout, values of another width, and rows of different lengths.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from advisor.decoders.attention import Layout, composed_attention
from advisor.decoders.fused import CUDNN_MASKED, FLASH, PREFERRED, efficient_attention, fused_attention
from advisor.decoders.sdpa import Kernel, prefers_cudnn, sums_in_memory
from advisor.tape.engine import run_backward
from advisor.tape.graph import Device, Tensor
from advisor.tape.program import Kernel as TapeKernel
from advisor.tape.tape import Tape
from calibrate.burst_record import DeviceFacts
from calibrate.record import HostSeconds, Record, Seconds, Text

KERNELS: tuple[Kernel, ...] = ("flash", "cudnn", "efficient", "math")
WIDTHS = (64, 96, 128, 256)
Dtype = Literal["bfloat16", "float16", "float32"]
TOKENS = {"cpu": (128, 256), "cuda": (1024, 4096)}
"""Tokens of a row, the shorter first: time left over goes to the longer ones."""
ROWS_TOKENS = {"cpu": 256, "cuda": 4096}
"""Of all rows together."""
HIDDEN = {"cpu": 128, "cuda": 2048}
"""Width of all heads together."""
LONGEST_MATH = 2048
"""Above it the scores of all heads, which math attention keeps several times in fp32, do not fit on small cards."""
MOST_REPEATS = 20
HOST_BOUND = 0.7
Extent = Annotated[int, Field(ge=1, le=2**20)]


class AttentionCase(NamedTuple):
    """One call to time, of a causal row without a mask, or under a bool mask; `size`: batch, heads, length, width."""

    kernel: Kernel
    masked: bool
    dtype: Dtype
    size: tuple[int, int, int, int]


class AttentionSample(Record):
    """A case and the seconds of its calls, or PyTorch's reason for refusing it."""

    kernel: Kernel
    masked: bool
    dtype: Dtype
    size: tuple[Extent, Extent, Extent, Extent] = Field(description="batch, heads, length, width of a head")
    forward_s: tuple[Seconds, ...] = Field(default=(), max_length=MOST_REPEATS, description="of each repetition")
    backward_s: tuple[Seconds, ...] = Field(default=(), max_length=MOST_REPEATS)
    forward_host_s: HostSeconds = Field(default=0.0, description="least CPU time to launch a forward")
    backward_host_s: HostSeconds = 0.0
    refused: Text = Field(default="", description="why it did not run, in one line; '' where it did")

    @model_validator(mode="after")
    def _ran_or_refused(self) -> AttentionSample:
        if not (bool(self.forward_s) == bool(self.backward_s) == (not self.refused)):
            raise ValueError("attention either has times of forward and backward or was refused")
        return self

    @property
    def case(self) -> AttentionCase:
        """What was timed."""
        return AttentionCase(self.kernel, self.masked, self.dtype, self.size)


def attention_cases(kind: Device) -> Iterator[AttentionCase]:
    """Every kernel, mask, dtype and width, first at the shorter length."""
    for length in TOKENS[kind]:
        for kernel in KERNELS:
            tokens = min(length, LONGEST_MATH) if kernel == "math" else length
            for masked in (False, True):
                for dtype in get_args(Dtype):
                    for width in WIDTHS:
                        size = (max(1, ROWS_TOKENS[kind] // length), max(1, HIDDEN[kind] // width), tokens, width)
                        yield AttentionCase(kernel, masked, dtype, size)


def lower_quartile(times_s: Sequence[float]) -> float:
    """The time that a quarter of the repetitions stay below: less disturbed than the median."""
    return statistics.quantiles(times_s, n=4)[0] if len(times_s) > 1 else times_s[0]


def waits_for_host(kind: Device, device_s: float, host_s: float) -> bool:
    """Whether a card was launched to for most of the time that it took, so that the time is not the kernel's."""
    return kind != "cpu" and host_s > HOST_BOUND * device_s


def taped_kernels(case: AttentionCase, kind: Device, capability: str) -> tuple[tuple[TapeKernel, ...], ...]:
    """What forward and backward of a case launch, by a tape of the call; heads are stored one after the other."""
    tape = Tape(kind)
    batch, heads, length, width = case.size
    q, k, v = (Tensor((batch, heads, length, width), case.dtype, needs_grad=True) for _ in range(3))
    mask = Tensor((batch, 1, length, length), "bool") if case.masked else None
    if case.kernel == "math":
        layout = Layout(q=True, k=True, v=True, grouped=False, single_row=True)
        out = composed_attention(tape, q, k, v, mask, drops=False, layout=layout)
    elif case.kernel == "efficient":
        out = efficient_attention(tape, q, k, v, mask, sums_in_memory(width, capability))
    else:
        cudnn = CUDNN_MASKED if case.masked else PREFERRED
        kinds = cudnn if case.kernel == "cudnn" else FLASH
        out = fused_attention(tape, q, k, v, mask, kinds=kinds)
    launched = len(tape.kernels)
    run_backward(tape, out, Tensor(out.shape, out.dtype))
    kernels = tuple((kind, dtype, flop, moved, (m, n, k)) for kind, dtype, flop, moved, m, n, k, _ in tape.kernels)
    return kernels[:launched], kernels[launched:]


class AttentionTime(NamedTuple):
    """One direction of a case that ran: the kernels of the tape and the time of a call."""

    case: AttentionCase
    backward: bool
    kernels: tuple[TapeKernel, ...]
    seconds: float
    host_bound: bool


def attention_times(samples: Iterable[AttentionSample], device: DeviceFacts) -> list[AttentionTime]:
    """The times of what ran, forward and backward."""
    kind = device.kind
    found = []
    for one in samples:
        if one.refused:
            continue
        directions = ((one.forward_s, one.forward_host_s), (one.backward_s, one.backward_host_s))
        taped = taped_kernels(one.case, kind, device.compute_capability)
        for backward, ((times_s, host_s), kernels) in enumerate(zip(directions, taped, strict=True)):
            seconds = lower_quartile(times_s)
            host_bound = waits_for_host(kind, seconds, host_s)
            found.append(AttentionTime(one.case, bool(backward), kernels, seconds, host_bound))
    return found


def stands_for_flash(case: AttentionCase, capability: str) -> bool:
    """Whether it is flash attention, or what a card that prefers cuDNN's runs in its place."""
    if case.masked:
        return False
    return case.kernel == "flash" or (case.kernel == "cudnn" and prefers_cudnn(capability))
