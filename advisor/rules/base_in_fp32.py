"""A 16-bit checkpoint loaded in fp32.

Frozen weights gain nothing from fp32: they take twice the memory, and under autocast each one is also kept as a
16-bit copy until the backward pass. Some trainers load fp32 unless told otherwise.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, default_of, extra_bytes, extra_gib

CODE = "ADV103"
SOURCE = "transformers 5.23, PreTrainedModel.from_pretrained(dtype=...)"


def check(context: Context) -> Finding | None:
    """Speaks up when fp32, asked for or the trainer's default, costs memory."""
    row = context.shown
    asked = {"base_dtype"} & {*context.question.fixed, *context.trainer.knobs}
    if row is None or not asked or row.recipe.base_dtype != "float32":
        return None
    half = "bfloat16" if context.has_bf16 else "float16"
    extra = extra_bytes(context, row, {"base_dtype": half})
    if extra <= 0:
        return None
    whose = "--base-dtype float32" if context.question.base_dtype is not None else f"fp32, {default_of(context)},"
    text = (
        f"{whose} costs {DISPLAY[row.method]} {extra_gib(extra)} more here than --base-dtype {half}; "
        "almost all checkpoints are published in 16 bits."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
