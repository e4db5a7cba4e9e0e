"""Near a threshold of the rules.

At 50,000 examples the recommendation changes from DoRA to LoRA, at 100,000 from rank 16 to rank 64. Both are rules of
thumb, and nothing about the data changes between 49,999 and 50,000 rows, but time and memory do. Within a tenth of a
threshold the answer says what it would be on the other side, and what that costs.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.dora_for_small_data import FEW_EXAMPLES
from advisor.rules.lora_for_speed import DEFAULT_RANK, HIGH_RANK, MANY_EXAMPLES
from advisor.rules.premise import recommendable
from advisor.rules.wording import DISPLAY, FORMULA, signed_gib, where
from advisor.specs import Method
from advisor.units import format_seconds

CODE = "ADV010"
NEAR = 0.1
"""Share of a threshold within which the other side is named."""


def check(context: Context) -> Finding | None:
    """Speaks up where the number of examples decided, and is near 50,000 or 100,000."""
    if context.priority != "quality" or context.question.method is not None or context.shown is None:
        return None
    examples = context.workload.examples
    if abs(examples - FEW_EXAMPLES) <= NEAR * FEW_EXAMPLES:
        text = _other_method(context)
    elif abs(examples - MANY_EXAMPLES) <= NEAR * MANY_EXAMPLES:
        text = _other_rank(context)
    else:
        return None
    return Finding((Reason(code=CODE, text=text, source=FORMULA),)) if text else None


def _other_method(context: Context) -> str:
    """DoRA below the threshold and LoRA above it, where both fit and DoRA's premise holds."""
    few = context.workload.examples < FEW_EXAMPLES
    mine: Method = "dora" if few else "lora"
    other: Method = "lora" if few else "dora"
    if context.recommended != mine or not context.fits(other) or not recommendable(context):
        return ""
    here, there = context.candidates[mine].time, context.candidates[other].time
    price = ""
    if here is not None and there is not None:
        its, own = format_seconds(there.total_s.likely), format_seconds(here.total_s.likely)
        price = f", {its} in place of {own} {where(context)}"
    side = f"From {FEW_EXAMPLES:,} examples on" if few else f"Below {FEW_EXAMPLES:,} examples"
    return f"{side} this would be {DISPLAY[other]}{price}. The limit is a rule of thumb: choose by the price."


def _other_rank(context: Context) -> str:
    """Rank 16 below the threshold and 64 above it, where the rank is open."""
    few, row = context.workload.examples < MANY_EXAMPLES, context.shown
    rank = HIGH_RANK if few else DEFAULT_RANK
    if row is None or not row.recipe.has_adapters or context.question.rank is not None or row.recipe.rank == rank:
        return ""
    changes: dict[str, object] = {"rank": rank}
    if context.question.alpha is None:
        changes["alpha"] = row.recipe.alpha * rank / row.recipe.rank
    other = row.recipe.model_copy(update=changes)
    needed = context.beside(row, other).memory.needed_bytes
    price = f"({signed_gib(needed.likely - row.memory.needed_bytes.likely)}"
    here, there = context.time_of(row.recipe), context.time_of(other)
    if here is not None and there is not None and here.total_s.likely:
        price += f", {there.total_s.likely / here.total_s.likely:.2f} times the time"
    price += ", does not fit)" if needed.high > context.memory_bytes else ")"
    side = f"From {MANY_EXAMPLES:,} examples on" if few else f"Below {MANY_EXAMPLES:,} examples"
    return f"{side} the rank would be {rank} {price}; --rank {rank} asks for it here."


RULE = Rule(CODE, "remarks", __doc__, (FORMULA,), check)
