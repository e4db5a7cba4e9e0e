"""Where the time of every row goes, on the card that the verdict is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from advisor.advice.job import has_bf16
from advisor.answer import Advice
from advisor.catalog import find_gpus
from advisor.costs.explanation import StepParts, explain_time
from advisor.costs.measured import measured_device
from advisor.specs import GpuSpec, Method, TracedModel


class TimeBreakdown(NamedTuple):
    """The parts of a micro-step of each row; `missing` says why there are none."""

    card: str
    steps: Mapping[Method, StepParts]
    missing: str = ""


def time_breakdown(advice: Advice) -> TimeBreakdown:
    """The breakdown of every row of an answer, on the smallest card whose speed is known."""
    if isinstance(advice.model, TracedModel):
        return TimeBreakdown("", {}, f"{advice.model.name} is estimated from a trace, which holds only sums.")
    card = _card(advice)
    if card is None:
        return TimeBreakdown("", {}, f"the speed of {advice.gpu.asked} is not known.")
    device, _ = measured_device(card)
    profile = None if device is None else device.profile
    steps = {
        row.method: explain_time(advice.model, row.recipe, advice.workload, card, profile) for row in advice.candidates
    }
    return TimeBreakdown(card.name, steps)


def _card(advice: Advice) -> GpuSpec | None:
    """The card whose kernels are shown: the one with the least memory, which the verdict is about."""
    known = [card for card in find_gpus(advice.gpu.asked) if card.speed_known]
    usable = [card for card in known if has_bf16(card)] or known
    return min(usable, key=lambda card: card.memory_bytes, default=None)
