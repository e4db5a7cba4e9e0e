"""DoRA at rank 16 below 50,000 examples.

DoRA trains the length of each weight column separately from its direction. Its authors report better scores than
LoRA's at the same rank (LLaMA3-8B, eight commonsense tasks: 85.2 against 80.8), and below 50,000 examples the longer
step costs little in total. That presumes a step of 1.3 to 1.5 times LoRA's. On all linear layers PEFT's DoRA often
takes longer; the search then adapts the attention only. If a step takes more than 2.5 times LoRA's even so, or if DoRA
does not fit, this rule falls back to LoRA. Target modules that you fix are kept, with their price. Not everyone sees
DoRA's gain, and of encoders no score is quoted: see ADV008.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.parameters.targets import default_targets
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.premise import AT_ALL, recommendable, step_ratio
from advisor.rules.trainer_default import decisive_default
from advisor.rules.wording import FORMULA, default_of, dora_cost, how, needs, on_layers
from advisor.units import format_gib

CODE = "ADV003"
FEW_EXAMPLES = 50_000
SOURCE = "Liu et al. 2024, arXiv:2402.09353, table 1"
_CLAIM = "its authors report 85.2 against LoRA's 80.8 on eight commonsense tasks (LLaMA3-8B)"


def check(context: Context) -> Finding | None:
    """DoRA if the examples are few, it fits and its premise holds; otherwise LoRA where that fits."""
    if context.workload.examples >= FEW_EXAMPLES:
        return None
    if recommendable(context):
        return Finding(_for_dora(context), "dora")
    if not context.fits("lora"):
        return None
    text = f"LoRA, although {context.workload.examples:,} examples are few enough for DoRA{_against_dora(context)}."
    return Finding((Reason(code=CODE, text=text, source=SOURCE),), "lora")


def _for_dora(context: Context) -> tuple[Reason, ...]:
    """Why DoRA, and its price: that first where the question fixed the layers, or where the scores are of others."""
    because = f"DoRA, because {context.workload.examples:,} examples are fewer than {FEW_EXAMPLES:,}"
    price = "; ".join(filter(None, (_step_price(context), dora_cost(context))))
    if context.encodes:
        return (Reason(code=CODE, text=f"{'; '.join(filter(None, (because, price)))}.", source=FORMULA),)
    if "target_modules" in context.question.fixed and price:
        first = Reason(code=CODE, text=f"{because}; {price}.", source=FORMULA)
        return (first, Reason(code=CODE, text=f"{_CLAIM[0].upper()}{_CLAIM[1:]}.", source=SOURCE))
    reasons = [Reason(code=CODE, text=f"{because}: {_CLAIM}.", source=SOURCE)]
    if price:
        reasons.append(Reason(code=CODE, text=f"{price[0].upper()}{price[1:]}.", source=FORMULA))
    return tuple(reasons)


def _step_price(context: Context) -> str:
    """'on the attention only a step takes 1.43 times LoRA's by the same recipe (3.05 on all ...)'; '' without times."""
    ratio = step_ratio(context)
    if ratio is None:
        return ""
    layers = on_layers(context, context.candidates["dora"].recipe)
    text = f"{layers} a step takes {ratio:.2f} times LoRA's by the same recipe"
    if _narrowed(context):
        elsewhere = step_ratio(context, target_modules=("all-linear",))
        text += "" if elsewhere is None else f" ({elsewhere:.2f} on all linear layers)"
    return text


def _narrowed(context: Context) -> bool:
    """Whether the search took the attention only, because DoRA is too slow on all linear layers."""
    targets = context.candidates["dora"].recipe.target_modules
    return (
        targets == ("attention",) != default_targets(context.model) and "target_modules" not in context.question.fixed
    )


def _against_dora(context: Context) -> str:
    """Why not DoRA after all: its memory or its price."""
    dora = context.candidates.get("dora")
    if dora is None:
        return ""
    if not context.fits("dora"):
        text = (
            f": DoRA needs {needs(dora)} at {how(dora.recipe)}, and the card has {format_gib(context.memory_bytes)} GiB"
        )
        default = decisive_default(context, ("dora",))
        return f"{text}; {default}" if default else text
    cost = dora_cost(context)
    even = "even " if _narrowed(context) else ""
    text = f": {even}{_step_price(context)}, more than {AT_ALL:g}" + (f"; {cost}" if cost else "")
    without = step_ratio(context, dropout=0.0) if dora.recipe.dropout else None
    if without is None or without > AT_ALL:
        return text
    whose = default_of(context) if "dropout" in context.trainer.knobs else "the question's"
    return f"{text}. With --dropout 0 in place of {whose} {dora.recipe.dropout:g} it would take {without:.2f} times"


RULE = Rule(CODE, "recommends", __doc__, (SOURCE,), check)
