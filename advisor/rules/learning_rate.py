"""The learning rate to start from.

It depends on batch, data and schedule, so each figure is only where to begin: the one that the method's authors used,
with how good that evidence is. A swept study (Schulman et al. 2025) finds one ratio that holds over models and data:
LoRA's best rate is about ten times that of full fine-tuning, so a rate that suits one is wrong for the other.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rates import learning_rate
from advisor.rules.context import Context, Finding, Rule
from advisor.units import format_learning_rate

CODE = "ADV015"
SOURCE_RATIO = "Schulman et al. 2025, https://thinkingmachines.ai/blog/lora/"


def check(context: Context) -> Finding | None:
    """The rate for the recommended method, with its source."""
    if context.recommended is None:
        return None
    variant = context.candidates[context.recommended].recipe.variant
    rate = learning_rate(context.recommended, context.parameters, variant)
    text = f"Start from a learning rate of {format_learning_rate(rate.value)}: {rate.evidence}."
    return Finding((Reason(code=CODE, text=text, source=rate.source),))


RULE = Rule(CODE, "remarks", __doc__, (SOURCE_RATIO,), check)
