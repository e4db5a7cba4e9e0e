"""LoRA at rank 16 between 50,000 and 100,000 examples.

Here DoRA's longer step begins to cost hours, and more data makes up for a simpler adapter. The rule says what DoRA
would add, so that you can reverse the choice with --method dora.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import dora_cost

CODE = "ADV004"
SOURCE = "Liu et al. 2024, arXiv:2402.09353, section 4.3"


def check(context: Context) -> Finding | None:
    """LoRA if it fits; the rules before have dealt with fewer and with more examples."""
    if not context.fits("lora"):
        return None
    cost = dora_cost(context)
    text = f"LoRA for {context.workload.examples:,} examples" + (f": {cost}." if cost else ".")
    return Finding((Reason(code=CODE, text=text, source=SOURCE),), "lora")


RULE = Rule(CODE, "recommends", __doc__, (SOURCE,), check)
