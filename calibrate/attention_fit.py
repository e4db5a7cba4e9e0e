"""Which attention times of a card to trust, and the coefficients that they set.

Each kernel is judged apart, with and without a mask: fits that leave out one width of heads predict it. What they miss
by more than LIMIT, or by more than the default profile does, is refused with the reason, and its coefficients stay as
they were. cuDNN's without a mask counts on cards that prefer it, elsewhere no step runs it.

Math attention has no coefficient of its own: it is made of batched products, elementwise operations and sums, which are
timed one by one. Its times are a check of those. Needs scipy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from advisor.costs.device import DeviceProfile
from advisor.costs.roofline import Roofline
from advisor.specs import GpuSpec
from calibrate.attention_rates import AttentionCase, AttentionSample, AttentionTime, attention_times, stands_for_flash
from calibrate.burst_record import DeviceFacts
from calibrate.fit import COEFFICIENTS, Coefficient, Fit, Observation, each_of, fit, sample_seconds, typical
from calibrate.rates import Timed

LIMIT = 0.25
"""Median error on held-out widths above which a kernel's times are refused."""
FLASH = "flash"
OWN = 1.0
"""What these coefficients are without a measurement is taken from one card or another: their prior is wide."""
OF_FLASH = tuple(
    one
    for one in COEFFICIENTS
    if one.field in ("attention_forward", "attention_backward", "cudnn_attention", "attention_padding_flop_per_byte")
)
"""Fitted together with bursts, in which flash attention runs, or cuDNN's where it is preferred."""
OF_OTHERS = (
    *each_of("efficient_attention", OWN, 2),
    *each_of("masked_attention", OWN, 2),
    *each_of("cudnn_masked_attention", OWN, 2),
    *each_of("attention_fp32", OWN, 2),
    Coefficient("sums_in_memory", OWN),
)
"""Fitted on top of all others: they are relative to flash attention and to an fp32 product."""


class Judged(NamedTuple):
    """The times that are fitted, the median error of each kernel on held-out widths, and a line for each refused."""

    flash: tuple[AttentionTime, ...] = ()
    others: tuple[AttentionTime, ...] = ()
    errors: Mapping[str, float] = {}
    remarks: tuple[str, ...] = ()


def judged(start: DeviceProfile, card: GpuSpec, samples: Iterable[AttentionSample], device: DeviceFacts) -> Judged:
    """What to trust, given a profile that knows the card's products and bandwidths.

    Nothing is fitted on a CPU: its one fused kernel is fitted by the bursts. Raises SourceUnavailable without scipy.
    """
    if device.kind == "cpu":
        return Judged()
    groups: dict[str, list[AttentionTime]] = {}
    for one in attention_times(samples, device):
        name = _fitted_as(one.case, device.compute_capability)
        if name and not one.host_bound:
            groups.setdefault(name, []).append(one)
    trusted: dict[str, list[AttentionTime]] = {}
    errors, remarks = {}, []
    for name, times in groups.items():
        error, reason = _judge(start, card, times, OF_FLASH if name == FLASH else OF_OTHERS)
        if reason:
            remarks.append(f"{name} attention not fitted: {reason}")
        else:
            trusted[name], errors[name] = times, error
    flash = trusted.pop(FLASH, [])
    return Judged(tuple(flash), tuple(one for times in trusted.values() for one in times), errors, tuple(remarks))


def _fitted_as(case: AttentionCase, capability: str) -> str:
    """The name of what the case's times are fitted as, for example 'efficient masked'; '' where they are not."""
    if stands_for_flash(case, capability):
        return FLASH
    name = f"{case.kernel} masked" if case.masked else case.kernel
    return name if name in ("efficient", "efficient masked", "cudnn masked") else ""


def _judge(
    start: DeviceProfile, card: GpuSpec, times: Sequence[AttentionTime], movable: Sequence[Coefficient]
) -> tuple[float, str]:
    """(median error on held-out widths, why the times are refused or '')."""
    widths = dict.fromkeys(one.case.size[-1] for one in times)
    if len(widths) < 2:
        return math.inf, f"heads of one width ({', '.join(map(str, widths))}) are too few"
    missed: list[float] = []
    for width in widths:
        seen = [one for one in times if one.case.size[-1] != width]
        unseen = [one for one in times if one.case.size[-1] == width]
        missed += time_errors(unseen, card, fit(start, card, seen, (), None, movable).profile)
    error, before = typical(missed), typical(time_errors(times, card, start))
    if error > LIMIT:
        return error, f"the median error on held-out widths is {error:.0%}, more than {LIMIT:.0%}"
    if error > before:
        return error, f"its held-out error ({error:.1%}) exceeds the default profile's ({before:.1%})"
    return error, ""


def time_errors(times: Iterable[Timed], card: GpuSpec, profile: DeviceProfile) -> list[float]:
    """log(predicted / measured)."""
    roofline = Roofline(card, profile)
    return [math.log(sample_seconds(one, roofline) / one.seconds) for one in times]


def fit_with_attention(
    start: DeviceProfile,
    card: GpuSpec,
    samples: Sequence[Timed],
    bursts: Sequence[Observation],
    guess: DeviceProfile,
    trusted: Judged,
) -> Fit:
    """`fit`, then the kernels of attention that it leaves out. Raises SourceUnavailable without scipy."""
    found = fit(start, card, (*samples, *trusted.flash), bursts, guess)
    if not trusted.others:
        return found
    return found._replace(profile=with_attention(found.profile, card, trusted))


def with_attention(profile: DeviceProfile, card: GpuSpec, trusted: Judged) -> DeviceProfile:
    """The profile with the coefficients that flash attention does not set; all others stay."""
    return fit(profile, card, trusted.others, (), None, OF_OTHERS).profile if trusted.others else profile
