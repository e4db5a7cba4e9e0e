"""The method that was asked for (--method).

With the method fixed, nothing is compared: the answer is whether it fits, how best to run it, and what it costs.
This is the only way to full fine-tuning and to QDoRA, which no other rule recommends.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, FORMULA, extra_bytes, extra_gib, hours, needs
from advisor.specs import DORA_METHODS, Method

CODE = "ADV007"


def check(context: Context) -> Finding | None:
    """The fixed method if it fits, with what DoRA adds to it where it is DoRA."""
    if context.question.method is None or len(context.candidates) != 1:
        return None
    method, row = next(iter(context.candidates.items()))
    if not context.fits(method):
        return None
    reasons = [Reason(code=CODE, source=FORMULA, text=f"{DISPLAY[method]} was asked for and needs {needs(row)}.")]
    if method in DORA_METHODS:
        plain: Method = "lora" if method == "dora" else "qlora"
        text = (
            f"{DISPLAY[method]} adds {extra_gib(extra_bytes(context, row, {'method': plain}))}"
            f"{_extra_time(context, method, plain)} to {DISPLAY[plain]} with the same recipe."
        )
        reasons.append(Reason(code=CODE, text=text, source=FORMULA))
    return Finding(tuple(reasons), method)


def _extra_time(context: Context, method: Method, plain: Method) -> str:
    recipe = context.candidates[method].recipe
    mine = context.estimate(recipe).time
    other = context.estimate(recipe.model_copy(update={"method": plain})).time
    if mine is None or other is None:
        return ""
    return f" and {hours(mine.total_s.likely - other.total_s.likely)}"


RULE = Rule(CODE, "recommends", __doc__, (FORMULA,), check)
