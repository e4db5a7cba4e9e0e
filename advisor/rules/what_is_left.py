"""The only method that fits.

When neither LoRA nor QLoRA fits but another method does, that method is recommended. This takes unusual knobs, such as
a rank so high that the adapters are larger than the model they adapt, which makes full fine-tuning the smaller job.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, FORMULA, needs
from advisor.specs import Method

CODE = "ADV009"
_ORDER: tuple[Method, ...] = ("dora", "qdora", "full")


def check(context: Context) -> Finding | None:
    """The first of DoRA, QDoRA and full fine-tuning that fits; the rules before have dealt with the others."""
    for method in _ORDER:
        if context.fits(method):
            text = f"Only {DISPLAY[method]} fits with these knobs: it needs {needs(context.candidates[method])}."
            return Finding((Reason(code=CODE, text=text, source=FORMULA),), method)
    return None


RULE = Rule(CODE, "recommends", __doc__, (FORMULA,), check)
