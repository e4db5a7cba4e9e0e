"""QLoRA when the model does not fit in 16 bits.

If neither LoRA nor DoRA fits with a 16-bit base, even at the smallest micro-batch with gradient checkpointing,
the base has to be stored in 4 bits. Its authors found nf4 with double quantization as good as 16 bits after
fine-tuning. The price is time: every micro-batch dequantizes every layer, forward and backward. Where a single default
of the trainer causes this, such as TRL's fp32 base, the answer names it with the flag that changes the verdict.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.trainer_default import decisive_default
from advisor.rules.wording import DISPLAY, how, needs, stored_form
from advisor.specs import Method
from advisor.units import format_gib

CODE = "ADV001"
SOURCE = "Dettmers et al. 2023, arXiv:2305.14314, section 4"


def check(context: Context) -> Finding | None:
    """QLoRA if it fits and no 16-bit adapter method does; first, a default of the trainer's that decides this."""
    if context.fits("lora") or context.fits("dora") or not context.fits("qlora"):
        return None
    row, card = context.candidates["qlora"], format_gib(context.memory_bytes)
    text = f"QLoRA stores the frozen weights in {stored_form(row.recipe)} and needs {needs(row)} of {card} GiB."
    reasons = [Reason(code=CODE, source=SOURCE, text=text)]
    sixteen: Method = "lora" if "lora" in context.candidates else "dora"
    if sixteen in context.candidates:
        other = context.candidates[sixteen]
        base = "an fp32 base" if other.recipe.base_dtype == "float32" else "a 16-bit base"
        text = f"{DISPLAY[sixteen]} with {base} needs {needs(other)}"
        default = decisive_default(context, ("lora", "dora"))
        if default:
            text = f"QLoRA, because {text} of {card}; {default}."
        else:
            text += f" at {how(other.recipe)}: not within {card} GiB."
        reasons.insert(0, Reason(code=CODE, text=text, source=SOURCE))
    return Finding(tuple(reasons), "qlora")


RULE = Rule(CODE, "recommends", __doc__, (SOURCE,), check)
