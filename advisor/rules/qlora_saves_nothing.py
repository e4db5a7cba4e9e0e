"""QLoRA that saves nothing.

prepare_model_for_kbit_training casts everything that is not in 4 bits to fp32: embeddings, output layer, norms. For
a small model with a large vocabulary that costs more than the 4-bit layers save, and each micro-batch pays for the
dequantizing. The rule compares QLoRA with LoRA at the same recipe.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import FORMULA, extra_bytes, extra_gib

CODE = "ADV102"
SOURCE = "peft 0.21.2, peft/utils/other.py, prepare_model_for_kbit_training"


def check(context: Context) -> Finding | None:
    """Speaks up when QLoRA at its recipe needs at least what LoRA needs there."""
    row = context.candidates.get("qlora")
    if row is None or context.stored_already or context.placement.offload != "none":
        return None  # what it saves is the host's then
    lora = {"method": "lora", "quant": "none", "double_quant": False, "kbit_upcast": False}
    extra = extra_bytes(context, row, lora)
    if extra < 0:
        return None
    text = f"QLoRA saves nothing here: it needs {extra_gib(extra)} more than LoRA with the same recipe."
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE, FORMULA), check)
