"""Which dtypes full fine-tuning is estimated with.

People mean two jobs by it. Weights loaded in bf16 are trained in bf16, and AdamW keeps its two moments in the same
dtype: 8 bytes a parameter with the gradient. bf16 has 8 significant bits, so an update below about 1/256 of a weight is
lost. fp32 weights under autocast (`--base-dtype float32`, the master weights of mixed precision) avoid this for twice
the bytes, 16 a parameter. The answer says which of the two it took, and what the other needs. Cards without bf16 need
fp32 weights: torch's gradient scaler cannot unscale fp16 gradients.
"""

from __future__ import annotations

from advisor.answer import Candidate, Reason
from advisor.blocks import ITEM_BYTES
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import needs
from advisor.specs import Recipe
from advisor.units import format_gib

CODE = "ADV012"
SOURCE = "Micikevicius et al. 2018, arXiv:1710.03740, section 3.1"
UPCAST = "accelerate 1.15, utils/fsdp_utils.py, fsdp2_prepare_model; deepspeed 0.19, runtime/bf16_optimizer.py"
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_TWO_MOMENTS = ("adamw", "adamw_foreach")
_OWN_DTYPE = (*_TWO_MOMENTS, "sgd", "rmsprop", "muon", "galore", "apollo")
"""Optimizers whose states, if any, have the dtype of the weights."""


def check(context: Context) -> Finding | None:
    """Speaks up whenever full fine-tuning is recommended."""
    row = context.shown
    if row is None or row.method != "full":
        return None
    recipe, dtype = row.recipe, _trained_dtype(row.recipe)
    if row.placement is not None and not row.placement.copies_model and recipe.autocast:
        text = (
            f"Assumed: weights, gradients and states of {recipe.optimizer} in fp32, 16 bytes a parameter over all cards"
        )
        return Finding((Reason(code=CODE, text=f"{text}: that is what accelerate makes of bf16=True.", source=UPCAST),))
    weights = _SHORT[dtype]
    states = weights if recipe.optimizer in _OWN_DTYPE else "their own dtype"
    total = f", {4 * ITEM_BYTES[dtype]} bytes a parameter" if recipe.optimizer in _TWO_MOMENTS else ""
    text = (
        f"Assumed: weights and gradients in {weights}, states of {recipe.optimizer} in {states}{total}"
        f"{_other(context, row)}."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


def _trained_dtype(recipe: Recipe) -> str:
    """The dtype of what is trained: of all weights, or of the last layers'."""
    own = recipe.trained_layers and recipe.trained_dtype != "base"
    return recipe.trained_dtype if own else recipe.base_dtype


def _other(context: Context, row: Candidate) -> str:
    """What fp32 weights need in place of 16-bit ones, or pure bf16 in place of those."""
    wide = _trained_dtype(row.recipe) == "float32"
    knob = "trained_dtype" if row.recipe.trained_layers else "base_dtype"
    flag = f"--{knob.replace('_', '-')}"
    if wide and not context.has_bf16:
        return ", because the card has no bf16 and fp16 gradients cannot be unscaled"
    changes: dict[str, object] = {knob: "bfloat16" if wide else "float32"}
    if not wide and "autocast" not in context.question.fixed:
        changes["autocast"] = True
    memory = context.beside(row, row.recipe.model_copy(update=changes)).memory
    other = row.model_copy(update={"memory": memory})
    needed, card = memory.needed_bytes, context.memory_bytes
    fits = "fits" if needed.high <= card else "only just fits" if needed.likely <= card else "does not fit"
    if wide:
        return f". Pure bf16 ({flag} bfloat16), which loses small updates, needs {needs(other)}"
    return (
        f": small updates are lost. fp32 weights ({flag} float32) need {needs(other)}, which {fits} in "
        f"{format_gib(card)}"
    )


RULE = Rule(CODE, "remarks", __doc__, (SOURCE,), check)
