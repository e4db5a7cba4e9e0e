"""DoRA with dropout keeps a copy of every adapted weight.

With dropout 0, PEFT's DoRA reuses the base layer's output. With any dropout it multiplies the input by the base
weight once more, and autograd keeps that weight, dequantized and cast, until the backward pass: 4 bytes per parameter,
2 under autocast, of all adapted layers at once without gradient checkpointing. Use dropout 0, or checkpointing.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, extra_bytes, extra_gib
from advisor.units import GIB

CODE = "ADV101"
SOURCE = "peft 0.21.2, peft/tuners/lora/dora.py, DoraLinearLayer.forward"


def check(context: Context) -> Finding | None:
    """Speaks up for the row that is shown, if DoRA trains it with dropout."""
    row = context.shown
    if row is None or not row.recipe.is_dora or row.recipe.dropout == 0:
        return None
    extra = extra_bytes(context, row, {"dropout": 0.0})
    if extra < 0.005 * GIB:
        return None
    when = "one layer at a time, thanks to checkpointing" if row.recipe.gradient_checkpointing else "of all layers"
    text = (
        f"{DISPLAY[row.method]} with --dropout {row.recipe.dropout:g} keeps a full copy of every adapted weight "
        f"for the backward pass ({when}): {extra_gib(extra)} more here than with --dropout 0."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
