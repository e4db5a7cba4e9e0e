"""Alpha at high ranks.

PEFT scales an adapter by alpha / rank. With a fixed alpha, a higher rank therefore learns more slowly, which hides what
it could hold; its author proves that alpha / sqrt(rank) keeps the size of updates (rsLoRA: `use_rslora=True`). The
other way is an alpha that follows the rank: a swept study found twice the rank best at rank 256, and `advise` does that
unless alpha is fixed. Do one of the two, not both. From rank 64 on the answer says which scale the recipe has.
"""

from __future__ import annotations

from math import sqrt

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.lora_for_speed import HIGH_RANK

CODE = "ADV014"
SOURCE = "Kalajdzievski 2023, arXiv:2312.03732; Biderman et al. 2024, arXiv:2405.09673"
USUAL_SCALE = 2.0
"""Alpha over rank unless alpha is fixed."""


def check(context: Context) -> Finding | None:
    """Speaks up from rank 64 on."""
    row = context.shown
    if row is None or not row.recipe.has_lora or row.recipe.rank < HIGH_RANK:
        return None
    rank, alpha = row.recipe.rank, row.recipe.alpha
    scale = alpha / rank
    if scale > USUAL_SCALE:
        return None
    text = f"--alpha {alpha:g} at rank {rank} scales the adapters by alpha/rank = {scale:.2g}, "
    if scale < USUAL_SCALE:
        text += (
            f"which slows learning; --alpha {USUAL_SCALE * rank:g} (swept study) or use_rslora=True, which divides by "
            f"sqrt(rank) and gives {alpha / sqrt(rank):.2g}, makes up for it."
        )
    else:
        text += (
            f"a swept study's choice; use_rslora=True divides by sqrt(rank), so alpha {scale * sqrt(rank):.3g} is the "
            "same there."
        )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "remarks", __doc__, (SOURCE,), check)
