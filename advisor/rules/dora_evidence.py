"""How good the evidence for DoRA is.

Its authors report gains over LoRA; PEFT's own comparison on MetaMathQA with Llama-3.2-3B does not: at rank 32 DoRA
scored 0.469 and LoRA 0.478 on the test set, and DoRA's step took longer. Try both on your own data if the
difference matters. Numbers as of commit a999426.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.specs import DORA_METHODS

CODE = "ADV008"
SOURCE = "https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA"


def check(context: Context) -> Finding | None:
    """Speaks up whenever DoRA or QDoRA is recommended."""
    if context.recommended not in DORA_METHODS:
        return None
    text = (
        "The evidence is mixed: in PEFT's own MetaMathQA comparison DoRA at rank 32 scored 0.469 and LoRA 0.478 "
        "on the test set."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "remarks", __doc__, (SOURCE,), check)
