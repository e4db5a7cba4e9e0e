"""Where a fit to a CPU begins. Needs no torch."""

from __future__ import annotations

from advisor.costs.device import BACKWARD_LAUNCH_S, FORWARD_LAUNCH_S, HOOK_S, DeviceProfile
from advisor.interval import Interval

NO_OVERHEAD = Interval(0.0, 0.0, 0.0)
CPU_PROFILE = DeviceProfile(
    name="CPU",
    asynchronous=False,
    matrix_efficiency=0.5,
    vector_efficiency=0.5,
    padding=(16.0, 16.0, 8.0),
    vector_padding=(4.0, 4.0, 4.0),
    attention_forward=0.07,
    attention_backward=0.12,
    attention_padding_flop_per_byte=(30.0, 190.0),
    matmul_bandwidth=0.5,
    elementwise_bandwidth=0.4,
    reduce_bandwidth=0.25,
    gather_bandwidth=0.35,
    strided_bandwidth=0.03,
    optimizer_bandwidth=0.5,
    dequantize_bandwidth=0.3,
    cache_bytes=2e7,
    cache_speedup=4.0,
    kernel_s=2e-6,
    forward_launch_s=FORWARD_LAUNCH_S,
    backward_launch_s=BACKWARD_LAUNCH_S,
    hook_s=HOOK_S,
    micro_step_s=1e-3,
    optimizer_step_s=1e-4,
    device_spread=Interval(0.5, 1.0, 2.0),
    launch_spread=Interval(0.5, 1.0, 2.0),
    context_bytes=NO_OVERHEAD,
    workspace_bytes=0,
    evidence="where a fit to this CPU's own rates begins",
)
"""Profile of a CPU. We read no data sheet for it: fractions are of twice the best rates of its micro-benchmarks.

The numbers are those of one core of an AMD EPYC (Zen 5), rounded: a starting point, since `calibrate` fits them all.
"""
