"""fp16 because the card has no bf16.

Cards before NVIDIA's Ampere have no bf16 matrix units. fp16 has the same size, but a range of 6e-5 to 65504: the loss
has to be scaled, and models trained in bf16 can overflow. The recipe is fp16; watch the loss for NaN. If bf16 is
requested anyway, such a card emulates it at a fraction of its speed.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule

CODE = "ADV106"
SOURCE = "https://docs.nvidia.com/cuda/cuda-c-programming-guide/#compute-capabilities"


def check(context: Context) -> Finding | None:
    """Speaks up for cards without bf16."""
    if context.has_bf16:
        return None
    card = context.cards[0]
    if context.question.base_dtype == "bfloat16":
        text = f"{card} has no bf16 units: --base-dtype bfloat16 is emulated there, much slower than float16."
    else:
        text = f"{card} has no bf16 units: the recipe uses fp16 with loss scaling; watch the loss for NaN."
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
