"""Times the cases of `calibrate.attention_rates` on a device. Worker-side: imports torch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from calibrate.attention_rates import MOST_REPEATS, AttentionCase, AttentionSample
from calibrate.record import printable
from calibrate.worker.microbench import Call, Clock, Repeats, timed_calls

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
REPEATS = {
    "cpu": Repeats(least=3, most=MOST_REPEATS, least_s=0.002, most_s=0.05),
    "cuda": Repeats(least=5, most=MOST_REPEATS, least_s=0.02, most_s=0.2),
}
NANOSECOND = 9
"""Digits of a time in seconds: no clock is finer."""


def measure_attention(device: Clock, cases: Iterable[AttentionCase], limit_s: float) -> Iterator[AttentionSample]:
    """A sample for each case, in order, until time runs out; what the device refuses takes no time."""
    end_s = time.perf_counter() + limit_s
    for case in cases:
        if time.perf_counter() > end_s:
            return
        yield _sample(device, case)


def _sample(device: Clock, case: AttentionCase) -> AttentionSample:
    """The times of one case; the reason where it is refused or does not fit into memory."""
    facts = case._asdict()
    with warnings.catch_warnings(record=True) as said, sdpa_kernel(BACKENDS[case.kernel]):
        warnings.simplefilter("always")
        try:
            forward, backward = attention_calls(case, device.place)
            forward_s, forward_host_s = timed_calls(device, forward, REPEATS[device.kind])
            backward_s, backward_host_s = timed_calls(device, backward, REPEATS[device.kind])
        except torch.OutOfMemoryError:
            return AttentionSample(**facts, refused="out of memory")
        except torch.AcceleratorError:  # nothing runs after it in this process
            raise
        except RuntimeError as error:  # no kernel of this kind, or one that fails on this card
            return AttentionSample(**facts, refused=_reason(error, [str(one.message) for one in said]))
    return AttentionSample(
        **facts,
        forward_s=tuple(round(one, NANOSECOND) for one in forward_s),
        backward_s=tuple(round(one, NANOSECOND) for one in backward_s),
        forward_host_s=round(forward_host_s, NANOSECOND),
        backward_host_s=round(backward_host_s, NANOSECOND),
    )


def attention_calls(case: AttentionCase, place: str) -> tuple[Call, Call]:
    """Forward, as in training, and backward of a case, with inputs allocated."""
    batch, heads, length, width = case.size
    dtype = getattr(torch, case.dtype)
    q, k, v = (torch.randn(batch, heads, length, width, dtype=dtype, device=place).requires_grad_() for _ in range(3))
    mask = torch.ones(length, length, dtype=torch.bool, device=place).tril().repeat(batch, 1, 1, 1)

    def forward() -> torch.Tensor:
        if case.masked:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    out = forward()
    gradient = torch.randn_like(out)
    return forward, lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)


def _reason(error: RuntimeError, said: list[str]) -> str:
    """PyTorch's reason in one line: what it warned of, else what it raised.

    It first warns that a kernel was not used, and then why; of kernels that are switched off, that they are.
    """
    words = [" ".join(one.split("(Triggered")[0].split()) for one in said]
    causes = [one for one in words if one and "not used because" not in one and "runtime disabled" not in one]
    return printable("; ".join(dict.fromkeys(causes)) or " ".join(str(error).split()) or type(error).__name__)
