"""The job only just fits, or something of its step is not known.

The likely need is within the card's memory, but its upper bound is not. What can go wrong: fragmentation of PyTorch's
allocator, a desktop or another process on the card, a longer row than stated. PYTORCH_ALLOC_CONF with
expandable_segments:True lowers fragmentation.

Where something runs that is not mirrored, such as a compiled block, no upper bound is known: then nothing surely fits,
and the figures are of what is known.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.libraries import allocator_variable
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, FORMULA, machine_text, needs
from advisor.units import format_gib

CODE = "ADV107"
SOURCE = "https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management"


def check(context: Context) -> Finding | None:
    """Speaks up when the recommended row is tight."""
    if context.recommended is None or context.candidates[context.recommended].verdict != "tight":
        return None
    row = context.candidates[context.recommended]
    if row.evidence.unknown and row.memory.needed_bytes.high <= context.memory_bytes:
        text = (
            f"{DISPLAY[row.method]} likely fits, but it is not sure; not known: {'; '.join(row.evidence.unknown)}. "
            f"What is known needs {needs(row)} of {format_gib(context.memory_bytes)} GiB."
        )
        return Finding((Reason(code=CODE, text=text, source=FORMULA),))
    if row.memory.needed_bytes.high <= context.memory_bytes and machine_text(row):
        text = f"{DISPLAY[row.method]} only just fits a machine's own memory: it takes {machine_text(row)}."
        return Finding((Reason(code=CODE, text=text, source=FORMULA),))
    text = (
        f"{DISPLAY[row.method]} only just fits: it needs {needs(row)} of "
        f"{format_gib(context.memory_bytes)} GiB. Keep the card free of other processes"
    )
    if row.recipe.expandable_segments:
        text += "; expandable segments are counted on already."
    else:
        variable = allocator_variable(row.recipe.stack)
        text += f", and set {variable}=expandable_segments:True (--expandable-segments estimates with it)."
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
