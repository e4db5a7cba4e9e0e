"""Nothing fits.

No method fits on the card with what was fixed. The answer then lists what would fit, each found by estimating it:
shorter sequences, fixed knobs left open, a bigger card, a smaller model of the same family. More cards of the same
size do not help with plain data-parallel training, because each of them holds a full copy of the model.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule, nearest
from advisor.rules.wording import DISPLAY, FORMULA, how, machine_text, needs
from advisor.units import format_gib

CODE = "ADV005"


def check(context: Context) -> Finding | None:
    """Names the method that comes nearest."""
    if any(context.fits(method) for method in context.candidates):
        return None
    row = nearest(context.candidates)
    text = (
        f"Nothing fits: the smallest is {DISPLAY[row.method]} with {needs(row)} at {how(row.recipe)}, "
        f"and the card has {format_gib(context.memory_bytes)} GiB."
    )
    if row.memory.needed_bytes.likely <= context.memory_bytes and machine_text(row):
        text = text[:-1] + f"; but a machine's own memory must hold {machine_text(row)}."
    return Finding((Reason(code=CODE, text=text, source=FORMULA),))


RULE = Rule(CODE, "recommends", __doc__, (FORMULA,), check)
