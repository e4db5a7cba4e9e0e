"""The smallest method when memory matters most (--priority memory).

Usually that is QLoRA. It is not when the model is small or its vocabulary large: what 4 bits save is then less than
what the fp32 copies of embeddings and output layer cost. So the estimates decide, each at the smallest micro-batch
with checkpointing.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, needs
from advisor.specs import ADAPTER_METHODS

CODE = "ADV006"
SOURCE = "Dettmers et al. 2023, arXiv:2305.14314"


def check(context: Context) -> Finding | None:
    """The adapter method with the smallest likely need, with --priority memory."""
    rows = [context.candidates[method] for method in ADAPTER_METHODS if context.fits(method)]
    if context.priority != "memory" or not rows:
        return None
    rows.sort(key=lambda row: row.memory.needed_bytes.likely)
    text = f"{DISPLAY[rows[0].method]} needs the least memory: {needs(rows[0])}"
    if len(rows) > 1:
        text += f"; next is {DISPLAY[rows[1].method]} with {needs(rows[1])}"
    return Finding((Reason(code=CODE, text=text + ".", source=SOURCE),), rows[0].method)


RULE = Rule(CODE, "recommends", __doc__, (SOURCE,), check)
