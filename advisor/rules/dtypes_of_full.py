"""Which dtypes full fine-tuning is estimated with.

Weights loaded in bf16 are trained in bf16, and AdamW keeps its two moments in the same dtype: 8 bytes a parameter with
the gradient. bf16 has 8 significant bits, so an update below about 1/256 of a weight is lost. fp32 weights under
autocast (`--base-dtype float32`) avoid this for twice the bytes. Cards without bf16 need fp32 weights: torch's gradient
scaler cannot unscale fp16 gradients.
"""

from __future__ import annotations

from advisor.answer import Candidate, Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import needs
from advisor.units import format_gib

CODE = "ADV012"
SOURCE = "Micikevicius et al. 2018, arXiv:1710.03740, section 3.1"
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_OWN_DTYPE = ("adamw", "adamw_foreach", "sgd")
"""Optimizers whose states, if any, have the dtype of the weights."""


def check(context: Context) -> Finding | None:
    """Speaks up whenever full fine-tuning is recommended."""
    row = context.shown
    if row is None or row.method != "full":
        return None
    recipe, weights = row.recipe, _SHORT[row.recipe.base_dtype]
    states = weights if recipe.optimizer in _OWN_DTYPE else "their own dtype"
    text = (
        f"Assumed: weights and gradients in {weights}, states of {recipe.optimizer} in {states}{_other(context, row)}."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


def _other(context: Context, row: Candidate) -> str:
    """What fp32 weights need in place of 16-bit ones."""
    if row.recipe.base_dtype == "float32":
        return "" if context.has_bf16 else ", because the card has no bf16 and fp16 gradients cannot be unscaled"
    changes: dict[str, object] = {"base_dtype": "float32"}
    if "autocast" not in context.question.fixed:
        changes["autocast"] = True
    memory = context.estimate(row.recipe.model_copy(update=changes)).memory
    other = row.model_copy(update={"memory": memory})
    needed, card = memory.needed_bytes, context.memory_bytes
    fits = "fits" if needed.high <= card else "only just fits" if needed.likely <= card else "does not fit"
    return (
        f": small updates are lost. fp32 weights (--base-dtype float32) need {needs(other)}, which {fits} in "
        f"{format_gib(card)}"
    )


RULE = Rule(CODE, "remarks", __doc__, (SOURCE,), check)
