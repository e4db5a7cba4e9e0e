"""The job only just fits.

The likely need is within the card's memory, but its upper bound is not. What can go wrong: fragmentation of PyTorch's
allocator, a desktop or another process on the card, a longer row than stated. PYTORCH_ALLOC_CONF with
expandable_segments:True lowers fragmentation.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, needs
from advisor.units import format_gib

CODE = "ADV107"
SOURCE = "https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management"


def check(context: Context) -> Finding | None:
    """Speaks up when the recommended row is tight."""
    if context.recommended is None or context.candidates[context.recommended].verdict != "tight":
        return None
    row = context.candidates[context.recommended]
    text = (
        f"{DISPLAY[row.method]} only just fits: it needs {needs(row)} of "
        f"{format_gib(context.memory_bytes)} GiB. Keep the card free of other processes, and set "
        "PYTORCH_ALLOC_CONF=expandable_segments:True (--expandable-segments estimates with it)."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
