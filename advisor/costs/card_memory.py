"""What a card holds for a step: its tensors, what the allocator holds beside them, and the CUDA context."""

from __future__ import annotations

from advisor.costs.device import DeviceProfile
from advisor.costs.fragmentation import counted_bytes, held_bytes
from advisor.costs.memory import StepMemory
from advisor.costs.peaks import ALLOCATED_SPREAD
from advisor.interval import Interval
from advisor.specs import GpuSpec, MemoryEstimate, Placement, Recipe, terms_of
from advisor.terms import TermName

NONE = Interval.exact(0)


def memory_estimate(
    step: StepMemory,
    recipe: Recipe,
    profile: DeviceProfile,
    spread: tuple[float, float] = ALLOCATED_SPREAD,
    evaluating: bool = False,
    lengths: int = 1,
    communication: Interval = NONE,
) -> MemoryEstimate:
    """What the card must hold for a step, and what it will show: two numbers.

    PyTorch's allocator reserves more than its tensors need while there is room, and empties its cache before it
    fails. So what must fit lies between the allocated and the reserved peak. The CUDA context comes on top of both.
    What other streams gather has pools of its own, which add to what is reserved where there is room. The terms add up
    to `needed_bytes.likely`. `evaluating`: the step is an evaluation's. `lengths`: it is the worst of many, which have
    so many lengths in random order. `communication`: what exchanging with other cards takes, outside of the allocator
    as the context is.
    """
    allocated = step.peak_bytes + profile.workspace_bytes
    low, high = spread
    bounds = Interval.around(float(allocated), low, high)
    static = sum(step.static_blocks.values()) + profile.workspace_bytes
    head, others = (Interval.around(float(peak + profile.workspace_bytes), low, high) for peak in step.part_peaks)
    reserved, needed = held_bytes(recipe, (head, others), static, profile.fragmentation, evaluating, lengths)
    aside = max(0, step.aside_bytes - step.moving.get(TermName.GATHERED, 0))  # beside what is counted at the peak
    reserved = reserved.plus(Interval(0, aside, step.aside_bytes))
    if step.at_most_bytes:
        bounds, reserved, needed = (
            Interval(max(static, low - step.at_most_bytes), likely, high)
            for low, likely, high in (bounds, reserved, needed)
        )
    outside = profile.context_bytes.plus(communication)
    must_fit = needed.plus(outside)
    terms = {
        **step.terms,
        TermName.WORKSPACE: profile.workspace_bytes,
        TermName.FRAGMENTATION: round(needed.likely) - allocated,
        TermName.CONTEXT: round(must_fit.likely) - round(needed.likely) - round(communication.likely),
        TermName.COMMUNICATION: round(communication.likely),
    }
    return MemoryEstimate(
        peak_allocated_bytes=counted_bytes(bounds, needed, recipe),
        peak_reserved_bytes=reserved,
        needed_bytes=must_fit,
        device_bytes=reserved.plus(outside),
        peak_at=step.peak_at,
        host_bytes=step.host_bytes,
        terms=terms_of(terms),
    )


def communication_of(gpu: GpuSpec, placement: Placement) -> Interval:
    """What exchanging with other cards takes; nothing on one."""
    if placement.gpus == 1:
        return NONE
    from advisor.costs.communicators import communication_bytes  # loaded for several cards alone

    return communication_bytes(gpu, placement)


def replayed_memory(memory: MemoryEstimate, reserved: Interval, needed: Interval, context: Interval) -> MemoryEstimate:
    """The same step with what a replay of its job says: `reserved` without the CUDA context, `needed` with it."""
    sizes = {term.name: term.bytes for term in memory.terms}
    more = round(needed.likely) - round(memory.needed_bytes.likely)
    sizes[TermName.FRAGMENTATION] = sizes.get(TermName.FRAGMENTATION, 0) + more
    return memory.model_copy(
        update={
            "peak_reserved_bytes": reserved,
            "needed_bytes": needed,
            "device_bytes": reserved.plus(context),
            "terms": terms_of(sizes),
        }
    )


def within_card(memory: MemoryEstimate, memory_bytes: int, context: Interval) -> MemoryEstimate:
    """The same where what is reserved is limited by the card: there the allocator empties its cache and goes on."""
    needed, most = memory.needed_bytes, memory_bytes - context.likely
    device = (max(need, min(size, memory_bytes)) for need, size in zip(needed, memory.device_bytes, strict=True))
    room = (max(need - aside, most) for need, aside in zip(needed, context, strict=True))
    return memory.model_copy(
        update={
            "device_bytes": Interval(*device),
            "peak_reserved_bytes": Interval(*map(min, memory.peak_reserved_bytes, room)),
        }
    )
