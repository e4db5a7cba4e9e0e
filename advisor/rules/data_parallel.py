"""Several cards as plain data-parallel.

Each card holds the whole job's memory and does its share of the rows, so the verdict is that of one card and the
time is divided by the number of cards. What is left out: exchanging the gradients after every step (little for
adapters, a copy of all weights for full fine-tuning), DDP's gradient buckets, and waiting for the slowest card.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule

CODE = "ADV108"
SOURCE = "https://docs.pytorch.org/docs/stable/notes/ddp.html"


def check(context: Context) -> Finding | None:
    """Speaks up for more than one card."""
    gpus = context.placement.gpus
    if gpus == 1:
        return None
    text = (
        f"{gpus:,} cards as data-parallel: the memory is that of one card, and the time is divided by {gpus:,}, "
        "without the exchange of gradients and without waiting for the slowest card."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "what data-parallel leaves out", "warns", __doc__, (SOURCE,), check)
