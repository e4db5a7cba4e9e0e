"""DoRA at rank 16 below 50,000 examples.

DoRA trains the length of each weight column separately from its direction. Its authors report better scores than
LoRA's at the same rank (LLaMA3-8B, eight commonsense tasks: 85.2 against 80.8), and below 50,000 examples the longer
step costs little in total. Not everyone sees this gain: see ADV008. If DoRA does not fit and LoRA does, this rule
falls back to LoRA.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import FORMULA, dora_cost, how, needs
from advisor.units import format_gib

CODE = "ADV003"
FEW_EXAMPLES = 50_000
SOURCE = "Liu et al. 2024, arXiv:2402.09353, table 1"


def check(context: Context) -> Finding | None:
    """DoRA if it fits and the examples are few; LoRA where only that fits."""
    examples = context.workload.examples
    if examples >= FEW_EXAMPLES:
        return None
    if context.fits("dora"):
        text = (
            f"DoRA, because {examples:,} examples are fewer than {FEW_EXAMPLES:,}: its authors report 85.2 "
            "against LoRA's 80.8 on eight commonsense tasks (LLaMA3-8B)."
        )
        reasons = [Reason(code=CODE, text=text, source=SOURCE)]
        cost = dora_cost(context)
        if cost:
            reasons.append(Reason(code=CODE, text=cost + ".", source=FORMULA))
        return Finding(tuple(reasons), "dora")
    if not context.fits("lora"):
        return None
    dora = context.candidates.get("dora")
    text = f"LoRA, although {examples:,} examples are few enough for DoRA"
    if dora is not None:
        text += (
            f": DoRA needs {needs(dora)} at {how(dora.recipe)}, and the card has {format_gib(context.memory_bytes)} GiB"
        )
    return Finding((Reason(code=CODE, text=text + ".", source=SOURCE),), "lora")


RULE = Rule(CODE, "recommends", __doc__, (SOURCE,), check)
