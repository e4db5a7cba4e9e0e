"""The method that was asked for (--method).

With the method fixed, nothing is compared: the answer is whether it fits, how best to run it, and what it costs.
This is the only way to full fine-tuning and to QDoRA, which no other rule recommends.
"""

from __future__ import annotations

from advisor.answer import Candidate, Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.premise import PLAIN, plain, step_ratio
from advisor.rules.wording import DISPLAY, FORMULA, extra_dora_bytes, extra_gib, needs, on_layers
from advisor.specs import DORA_METHODS
from advisor.units import format_seconds

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
        reasons.append(Reason(code=CODE, text=_price(context, row), source=FORMULA))
    return Finding(tuple(reasons), method)


def _price(context: Context, row: Candidate) -> str:
    """What DoRA adds to the same recipe without it."""
    other = DISPLAY[PLAIN[row.method]]
    text = f"{DISPLAY[row.method]} {on_layers(context, row.recipe)} adds {extra_gib(extra_dora_bytes(context, row))}"
    mine, base = (context.time_of(one) for one in (row.recipe, plain(context.model, row.recipe)))
    if mine is not None and base is not None:
        text += f" and {format_seconds(mine.total_s.likely - base.total_s.likely)}"
    ratio = step_ratio(context, row.method)
    times = "" if ratio is None else f": its step takes {ratio:.2f} times {other}'s"
    return f"{text} to {other} with the same recipe{times}."


RULE = Rule(CODE, "recommends", __doc__, (FORMULA,), check)
