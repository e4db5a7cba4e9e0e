"""A setting that has no effect.

A knob was set that means nothing for the methods in question, for example --rank with --method full. It is
left out of the recipe; the warning makes sure that nobody counts on its effect.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.knobs import idle_knobs
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import FORMULA

CODE = "ADV104"


def check(context: Context) -> Finding | None:
    """One reason for each idle knob."""
    found = [
        Reason(code=CODE, text=f"--{name.replace('_', '-')} has no effect {why}.", source=FORMULA)
        for name, why in _idle(context)
    ]
    return Finding(tuple(found)) if found else None


def _idle(context: Context) -> list[tuple[str, str]]:
    question = context.question
    fixed, checkpointing = question.fixed, question.gradient_checkpointing in (None, True)
    # What is idle for one method only may be there for another.
    each = [idle_knobs(method, question.quant or "nf4", checkpointing) for method in context.candidates]
    idle = [(name, why) for name, why in each[-1].items() if name in fixed and all(name in one for one in each)]
    if "data" not in fixed:
        idle += [(name, "without --data") for name in ("data_columns", "tokenizer", "skip_bad_lines") if name in fixed]
    if "sharding" in fixed and context.placement.gpus == 1:
        idle.append(("sharding", "on one card"))
    return idle


RULE = Rule(CODE, "warns", __doc__, (FORMULA,), check)
