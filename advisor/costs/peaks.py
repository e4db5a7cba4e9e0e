"""The peak of a job, from the peaks of its moments on a card."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from advisor.costs.device import DeviceProfile
from advisor.costs.moments import Beginning, beginnings
from advisor.interval import Interval
from advisor.specs import MemoryEstimate, ModelSpec, Moment, MomentName, Recipe, terms_of
from advisor.terms import TermName

ALLOCATED_SPREAD = (0.02, 0.02)
"""Relative bounds of the peak that PyTorch allocates: what CUDA's kernels may differ by from the traced CPU step."""
MEMORY_COUNTERS = ("peak_allocated_bytes", "peak_reserved_bytes", "needed_bytes", "device_bytes")
MOMENT_COUNTERS = ("peak_allocated_bytes", "needed_bytes")


class Peak(NamedTuple):
    """A moment of a job and its peak."""

    moment: Moment
    memory: MemoryEstimate


def peak_of(name: MomentName, memory: MemoryEstimate) -> Peak:
    """A moment from the peak of all that is held during it."""
    allocated, needed = memory.peak_allocated_bytes, memory.needed_bytes
    return Peak(Moment(name=name, peak_allocated_bytes=allocated, needed_bytes=needed), memory)


def largest(peaks: Sequence[Peak]) -> MemoryEstimate:
    """The peak of a job with its moments: every counter is the largest, the terms are those of what needs the most."""
    highest = max((one.memory for one in peaks), key=lambda one: one.needed_bytes.likely)
    counters = {name: Interval(*map(max, *(getattr(one.memory, name) for one in peaks))) for name in MEMORY_COUNTERS}
    return highest.model_copy(update={**counters, "moments": tuple(one.moment for one in peaks)})


def reaching(memory: MemoryEstimate, peaks: Sequence[Peak]) -> MemoryEstimate:
    """The same where the card may show as much as at other moments, which need not be there."""
    update = {}
    for name in ("peak_reserved_bytes", "device_bytes"):
        own = getattr(memory, name)
        update[name] = own._replace(high=max(own.high, *(getattr(one.memory, name).high for one in peaks)))
    return memory.model_copy(update=update)


@lru_cache(maxsize=256)
def beginning_peaks(m: ModelSpec, base: Recipe, profile: DeviceProfile) -> tuple[Peak, ...]:
    """How a job on a quantized base (`moments.base_of`) begins, on a card: the same for all plans of a method."""
    return tuple(peak_of(one.name, _beginning_estimate(one, profile)) for one in beginnings(m, base))


def _beginning_estimate(one: Beginning, profile: DeviceProfile) -> MemoryEstimate:
    """What a card holds before there are cuBLAS workspaces; few large tensors come and go, in segments of their own."""
    bounds = Interval.around(float(one.bytes), *ALLOCATED_SPREAD)
    needed = bounds.plus(profile.context_bytes)
    context = round(needed.likely) - one.bytes
    terms = {**one.held, TermName.TEMPORARIES: one.beside_bytes, TermName.CONTEXT: context}
    return MemoryEstimate(
        peak_allocated_bytes=bounds,
        peak_reserved_bytes=bounds,
        needed_bytes=needed,
        device_bytes=needed,
        peak_at=one.what,
        terms=terms_of(terms),
    )
