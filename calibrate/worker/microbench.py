"""Times the kernels of `calibrate.rates` on a device. Worker-side: imports torch."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from calibrate.attention_rates import lower_quartile, waits_for_host
from calibrate.rates import Case, Sample, kernels_of

COLD_BYTES, MOST_COPIES = 2**27, 64
"""Bytes of weights that products cycle through, so that they are read from memory and not from a cache."""


class Clock(Protocol):
    """The part of `calibrate.worker.device.Device` that timing needs."""

    kind: Any
    place: str

    def synchronize(self) -> None:
        """Wait until the device is done."""

    def mark(self) -> Any:
        """A time mark on the device's own clock."""

    def seconds(self, begin: Any, end: Any) -> float:
        """Time between two marks of a synchronized device."""


Call = Callable[[], Any]


def measure(device: Clock, cases: Iterable[Case], limit_s: float) -> Iterator[Sample]:
    """A sample for each case, in order, until time runs out.

    A case that does not fit in the device's memory is skipped.
    """
    end_s = time.perf_counter() + limit_s
    for case in cases:
        if time.perf_counter() > end_s:
            return
        try:
            call = _spread(prepared(case, device.place))
            times_s, host_s = timed_calls(device, call)
        except torch.OutOfMemoryError:
            continue
        seconds = lower_quartile(times_s)
        host_bound = waits_for_host(device.kind, seconds, host_s)
        yield Sample(op=case.op, kernels=kernels_of(case, device.kind), seconds=seconds, host_bound=host_bound)
        del call


def _spread(call: Call) -> Call:
    """The call, with its last results kept, so that each result is written to memory that is not in a cache."""
    first = call()
    made = first if isinstance(first, tuple) else (first,)
    size = sum(one.nbytes for one in made if isinstance(one, torch.Tensor))
    kept: deque[object] = deque(maxlen=min(MOST_COPIES, 1 + COLD_BYTES // max(1, size)))
    return lambda: kept.append(call())


class Repeats(NamedTuple):
    """How often a call is repeated: `least` times and for `least_s`, unless that takes `most_s`; at most `most` times.

    Calls shorter than `group_s` are timed in groups of about this duration.
    """

    least: int = 5
    most: int = 200
    least_s: float = 0.02
    most_s: float = 0.5
    group_s: float = 2e-4


USUAL = Repeats()


def timed_calls(device: Clock, call: Call, repeats: Repeats = USUAL) -> tuple[list[float], float]:
    """(device seconds of one call, of each repetition; the least host seconds of one call)."""
    group = max(1, round(repeats.group_s / max(_once(device, call, 1)[0], 1e-7)))
    found: list[tuple[float, float]] = []
    begin_s = time.perf_counter()
    while len(found) < repeats.most:
        found.append(_once(device, call, group))
        spent_s = time.perf_counter() - begin_s
        if spent_s > repeats.most_s or (spent_s > repeats.least_s and len(found) >= repeats.least):
            break
    return [one / group for one, _ in found], min(host for _, host in found) / group


def _once(device: Clock, call: Call, group: int) -> tuple[float, float]:
    """(device seconds, host seconds) of `group` calls in a row."""
    device.synchronize()
    begin, begin_s = device.mark(), time.perf_counter()
    for _ in range(group):
        call()
    host_s = time.perf_counter() - begin_s
    end = device.mark()
    device.synchronize()
    return device.seconds(begin, end), host_s


def prepared(case: Case, place: str) -> Call:
    """The operation of a case as a call without arguments, with its inputs allocated."""
    return _MAKERS[case.op](case.size, getattr(torch, case.dtype), place)


def _product(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    """Each call uses a different weight: in a step, all others have been read since this one was last used."""
    m, n, k = size
    x = torch.randn(m, k, dtype=dtype, device=place)
    turn = _copies(torch.randn(n, k, dtype=dtype, device=place))
    return lambda: F.linear(x, next(turn))


def _copies(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor and its copies in rotation, more than a cache holds."""
    count = min(MOST_COPIES, COLD_BYTES // tensor.nbytes)
    return itertools.cycle([tensor, *(tensor.clone() for _ in range(count))])


def _batched_product(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    count, m, n, k = size
    a = torch.randn(count, m, k, dtype=dtype, device=place)
    b = torch.randn(count, k, n, dtype=dtype, device=place)
    return lambda: torch.bmm(a, b)


def _sum(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    a, b = torch.randn(size, dtype=dtype, device=place), torch.randn(size, dtype=dtype, device=place)
    return lambda: a + b


def _activation(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    x = torch.randn(size, dtype=dtype, device=place)
    return lambda: F.silu(x)


def _cast(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    x = torch.randn(size, device=place)
    return lambda: x.to(dtype)


def _strided_sum(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    weight = torch.randn(size, device=place).to(torch.bfloat16 if place == "cpu" else torch.float16)
    update = torch.randn((size[1], size[0]), dtype=dtype, device=place).T
    return lambda: weight + update


def _norm(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    x = torch.randn(size, dtype=dtype, device=place)
    return lambda: torch.linalg.norm(x, dim=1)


def _softmax(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    x = torch.randn(size, dtype=dtype, device=place)
    return lambda: torch.softmax(x, dim=1)


def _rows(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    picked, width, rows = size
    table = torch.randn(rows, width, dtype=dtype, device=place)
    index = torch.randint(rows, (picked,), device=place)
    return lambda: F.embedding(index, table)


def _dequantize(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    import bitsandbytes.functional as bnb

    packed, state = bnb.quantize_4bit(torch.randn(size, dtype=dtype, device=place), quant_type="nf4")
    turn = _copies(packed)
    return lambda: bnb.dequantize_4bit(next(turn), state)


def _heads(size: tuple[int, ...], dtype: torch.dtype, place: str) -> list[torch.Tensor]:
    return [torch.randn(size, dtype=dtype, device=place, requires_grad=True) for _ in range(3)]


def _attention(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    q, k, v = (one.detach() for one in _heads(size, dtype, place))
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _attention_backward(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    inputs = _heads(size, dtype, place)
    q, k, v = inputs
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    grad = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)


def _adamw(size: tuple[int, ...], dtype: torch.dtype, place: str) -> Call:
    """The fused step of one weight matrix whose gradient exists."""
    weight = torch.nn.Parameter(torch.randn(size, dtype=dtype, device=place))
    weight.grad = torch.randn(size, dtype=dtype, device=place)
    optimizer = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0, fused=True)
    return lambda: optimizer.step()


_MAKERS: dict[str, Callable[[tuple[int, ...], torch.dtype, str], Call]] = {
    "product": _product,
    "batched product": _batched_product,
    "sum": _sum,
    "activation": _activation,
    "cast": _cast,
    "strided sum": _strided_sum,
    "norm": _norm,
    "softmax": _softmax,
    "rows": _rows,
    "dequantize": _dequantize,
    "attention": _attention,
    "attention backward": _attention_backward,
    "adamw": _adamw,
}
