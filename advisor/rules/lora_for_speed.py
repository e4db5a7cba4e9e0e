"""LoRA when speed matters: on request, or from 100,000 examples.

DoRA computes the norm of every adapted weight in every micro-batch. For few examples that is cheap; for a
hundred thousand it adds up. With so many examples a small adapter also becomes the bottleneck: full fine-tuning
moves the weights by matrices of much higher rank than usual adapters have, and LoRA with a low rank falls behind on
large data sets. So from 100,000 examples on the rank is 64 (alpha twice that) unless the rank is fixed.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import dora_cost

CODE = "ADV002"
MANY_EXAMPLES = 100_000
DEFAULT_RANK = 16
"""Rank below that many examples."""
HIGH_RANK = 64
"""Rank from that many examples on."""
SOURCE_COST = "Liu et al. 2024, arXiv:2402.09353, section 4.3"
SOURCE_RANK = "Biderman et al. 2024, arXiv:2405.09673, section 5"


def check(context: Context) -> Finding | None:
    """LoRA if it fits and speed matters."""
    many = context.workload.examples >= MANY_EXAMPLES
    if not context.fits("lora") or not (many or context.priority == "speed"):
        return None
    row = context.candidates["lora"]
    why = (
        "speed was asked for"
        if context.priority == "speed"
        else (f"at {context.workload.examples:,} examples every extra millisecond of a step adds up")
    )
    cost = dora_cost(context)
    reasons = [Reason(code=CODE, source=SOURCE_COST, text=f"LoRA, because {why}" + (f": {cost}." if cost else "."))]
    if many and context.question.rank is None:
        text = (
            f"Rank {row.recipe.rank}, alpha {row.recipe.alpha:g}: at about {MANY_EXAMPLES:,} examples, low ranks fell "
            "short of full fine-tuning (swept study)."
            if row.recipe.rank > DEFAULT_RANK
            else f"A rank of {HIGH_RANK} would suit {context.workload.examples:,} examples, but does not fit."
        )
        reasons.append(Reason(code=CODE, text=text, source=SOURCE_RANK))
    return Finding(tuple(reasons), "lora")


RULE = Rule(CODE, "recommends", __doc__, (SOURCE_COST, SOURCE_RANK), check)
