"""Adapters that reach different layers.

On a mixture of experts whose weights transformers fuses, PEFT's 'all-linear' adapts router and experts only by LoRA
without dropout: its wrapper of a fused parameter refuses DoRA and dropout. So DoRA, and LoRA with dropout, adapt only
the attention (and any other plain linear layers) and leave the experts as they are. Such candidates train different
parts of the model, so their memory, time and quality cannot be compared directly. `--target-modules attention`
compares like with like.
"""

from __future__ import annotations

from advisor.answer import Candidate, Reason
from advisor.parameters.targets import adapts_experts
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY
from advisor.specs import ModelSpec
from advisor.units import format_count

CODE = "ADV110"
SOURCE = "peft 0.21.2, peft/tuners/lora/layer.py, ParamWrapper; peft/utils/transformers_weight_conversion.py"


def check(context: Context) -> Finding | None:
    """Speaks up when some candidates adapt the experts and others do not."""
    m = context.model
    if not isinstance(m, ModelSpec):
        return None
    rows = [row for row in context.candidates.values() if row.recipe.has_adapters]
    reach = {
        row.method: adapts_experts(m, row.recipe.target_modules, row.recipe.is_dora, row.recipe.dropout) for row in rows
    }
    if len(set(reach.values())) < 2:
        return None
    whole, part = (_named([row for row in rows if reach[row.method] is on]) for on in (True, False))
    text = (
        f"On this mixture PEFT adapts the fused experts only by LoRA without dropout. With {whole}, experts and "
        f"attention are adapted; with {part}, only the attention. --target-modules attention compares like with like."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


def _named(rows: list[Candidate]) -> str:
    """'LoRA and QLoRA (1.2B trained parameters)'."""
    names = " and ".join(DISPLAY[row.method] for row in rows)
    return f"{names} ({format_count(max(row.trainable_parameters for row in rows))} trained parameters)"


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
