"""What data parallelism leaves out.

Each card holds a full copy of the model and does its share of the rows, so the verdict is that of one card. The time
includes the exchange of the gradients after every step (little for adapters, a copy of all trained weights for full
fine-tuning). What is left out: DDP's gradient buckets, which take the bytes of the gradients once more, waiting for
the slowest card, and loading the data for all of them.
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
        f"{gpus:,} data-parallel cards: each needs the memory of a single-card run plus DDP's gradient buckets, which "
        "are not counted. Waiting for the slowest card and loading the data are not included either."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
