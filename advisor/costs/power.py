"""A card's power limit: what it leaves of the matrix rate, and the energy of a job."""

from __future__ import annotations

import math

from advisor.interval import Interval
from advisor.specs import GpuSpec


def powered_share(gpu: GpuSpec, watts_per_tflops: float) -> float:
    """The fraction of a card's matrix rate that its power limit allows: 1 if it does not limit or is unknown."""
    matrix = max(gpu.bf16_flop_per_s, gpu.fp16_flop_per_s)
    if not (gpu.power_w and matrix and watts_per_tflops):
        return 1.0
    return min(1.0, math.sqrt(gpu.power_w / (matrix * 1e-12 * watts_per_tflops)))


IDLE_POWER, BUSY_POWER = 0.2, Interval(0.5, 0.85, 1.0)
"""Fractions of its power limit that a card draws between kernels and while they run (our judgment)."""


def energy(total_s: Interval, busy: float, gpu: GpuSpec) -> Interval:
    """Joules of one card over the job; `busy` is the share of the time in which kernels run on it.

    Ignores: the host, cooling, and losses of the power supply.
    """
    power = [gpu.power_w * (IDLE_POWER + (share - IDLE_POWER) * busy) for share in BUSY_POWER]
    return Interval(*(seconds * watts for seconds, watts in zip(total_s, power, strict=True)))
