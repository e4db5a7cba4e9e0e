"""How good the evidence for DoRA is.

Its authors report gains over LoRA; PEFT's own comparison on MetaMathQA with Llama-3.2-3B does not: at rank 32 DoRA
scored 0.469 and LoRA 0.478 on the test set, and DoRA's step took longer. Numbers as of commit a999426. Where DoRA
adapts the attention only, because of its price, the evidence is weaker still: a swept study of LoRA found the attention
only behind layers that include the MLP, even with as many parameters. LoRA on all linear layers is the alternative.
All of them trained decoders: of an encoder these scores say nothing, and none is quoted for one. Try both on your own
data if the difference matters.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import on_layers
from advisor.specs import DORA_METHODS
from advisor.units import format_seconds

CODE = "ADV008"
SOURCE = "https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA"
SOURCE_GAIN = "Liu et al. 2024, arXiv:2402.09353, table 1"
SOURCE_LAYERS = "Schulman et al. 2025, https://thinkingmachines.ai/blog/lora/"


def check(context: Context) -> Finding | None:
    """Speaks up whenever DoRA or QDoRA is recommended."""
    if context.recommended not in DORA_METHODS:
        return None
    if context.encodes:
        text = "DoRA's gain over LoRA was reported for decoders (LLaMA3-8B); we know no comparison on an encoder"
        return Finding((Reason(code=CODE, text=f"{text}{_instead(context)}.", source=SOURCE_GAIN),))
    text = "The evidence is mixed: in PEFT's MetaMathQA comparison (benchmark suite) DoRA scored 0.469 and LoRA 0.478"
    recipe = context.candidates[context.recommended].recipe
    if recipe.target_modules != ("attention",):
        return Finding((Reason(code=CODE, text=f"{text}.", source=SOURCE),))
    text += f"; attention-only adapters fell behind those with the MLP (swept study){_instead(context)}."
    return Finding((Reason(code=CODE, text=text, source=f"{SOURCE}; {SOURCE_LAYERS}"),))


def _instead(context: Context) -> str:
    """'. LoRA on all linear layers takes 0.38 h', where that fits."""
    lora = context.candidates.get("lora")
    if lora is None or lora.verdict != "fits" or lora.recipe.target_modules == ("attention",):
        return ""
    return f". LoRA {on_layers(context, lora.recipe)} " + (
        "fits" if lora.time is None else f"takes {format_seconds(lora.time.total_s.likely)}"
    )


RULE = Rule(CODE, "remarks", __doc__, (SOURCE, SOURCE_LAYERS), check)
