"""Times of attention on a card whose profile is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from advisor.costs.device import DeviceProfile
from advisor.costs.roofline import Roofline
from advisor.specs import GpuSpec
from advisor.tape.program import Kernel
from calibrate.attention_rates import AttentionCase, AttentionSample, attention_cases, taped_kernels

NOISE = 0.02


def refused(case: AttentionCase, capability: str) -> str:
    """Roughly what PyTorch says."""
    old = float(capability) < 8.0
    if case.kernel in ("flash", "cudnn") and (old or case.dtype == "float32"):
        return "not for this card or dtype"
    if (case.kernel == "flash" and case.masked) or (case.kernel == "cudnn" and case.size[-1] > 128):
        return "not for this mask or width"
    return "no bfloat16 here" if case.kernel == "efficient" and old and case.dtype == "bfloat16" else ""


def attention_samples(
    card: GpuSpec, profile: DeviceProfile, change: Callable[[AttentionCase], float] = lambda _: 1.0
) -> list[AttentionSample]:
    """Every case as `profile` says, times `change` and noise, on a card of the capability that it has."""
    capability, chance, roofline = card.compute_capability, random.Random(3), Roofline(card, profile)

    def times(case: AttentionCase, kernels: tuple[Kernel, ...]) -> tuple[float, ...]:
        seconds = change(case) * sum(max(roofline.seconds(kernel)) + roofline.fixed_s for kernel in kernels)
        return tuple(seconds * math.exp(chance.gauss(0, NOISE)) for _ in range(5))

    found = []
    for case in attention_cases("cuda"):
        reason = refused(case, capability)
        if reason:
            found.append(AttentionSample(**case._asdict(), refused=reason))
            continue
        forward, backward = (times(case, kernels) for kernels in taped_kernels(case, "cuda", capability))
        found.append(AttentionSample(**case._asdict(), forward_s=forward, backward_s=backward))
    return found
