"""Full fine-tuning fits too.

Adapters are recommended because they need less memory. On a small model or a big card full fine-tuning may fit as
well, be faster, because no adapter runs beside each layer, or need no more memory, where long rows outweigh the
weights. It learns more than adapters do and also forgets more of what the model knew. No rule recommends it; the answer
says what it would take.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, needs, where
from advisor.units import format_gib, format_seconds

CODE = "ADV011"
SOURCE = "Biderman et al. 2024, arXiv:2405.09673"


def check(context: Context) -> Finding | None:
    """Speaks up when full fine-tuning fits and is faster than the recommended row, or needs no more memory."""
    full, row = context.candidates.get("full"), context.shown
    if full is None or row is None or row.method == "full" or full.verdict != "fits":
        return None
    faster = full.time is not None and row.time is not None and full.time.total_s.likely < row.time.total_s.likely
    if not faster and full.memory.needed_bytes.likely > row.memory.needed_bytes.likely:
        return None
    its, mine = f"needs {needs(full)}", f"{format_gib(row.memory.needed_bytes.likely)} GiB"
    if full.time is not None and row.time is not None:
        its += f" and {format_seconds(full.time.total_s.likely)}"
        mine += f" and {format_seconds(row.time.total_s.likely)} {where(context)}"
    text = (
        f"Full fine-tuning fits too: it {its}, {DISPLAY[row.method]} {mine}. It learns more and forgets more "
        "(swept study); ask for it with --method full."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "remarks", __doc__, (SOURCE,), check)
