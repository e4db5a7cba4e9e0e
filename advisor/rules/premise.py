"""The premise of the rules about DoRA: that its step takes not much longer than LoRA's.

Its authors and users report 1.3 to 1.5 times. That holds where few and small weights are adapted: for every adapted
weight PEFT's DoRA builds the product of both adapters and the norm of the sum, in every micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.errors import InputError
from advisor.parameters.targets import spelled_targets
from advisor.rules.context import Context
from advisor.specs import Method, Model, ModelSpec, Recipe, TimeEstimate

PLAIN: dict[Method, Method] = {"dora": "lora", "qdora": "qlora"}
"""Each DoRA method's counterpart without magnitudes."""

EVERYWHERE = 1.5
"""At most this many times LoRA's step, and DoRA is used on all linear layers; beyond it on the attention's only."""
AT_ALL = 2.5
"""At most this many times LoRA's step with the same targets, and DoRA is recommended."""


def plain(model: Model, recipe: Recipe) -> Recipe:
    """A DoRA recipe without DoRA, on the same layers: LoRA by 'all-linear' would reach the experts of a mixture too."""
    targets = spelled_targets(model, recipe) if isinstance(model, ModelSpec) else recipe.target_modules
    return recipe.model_copy(update={"method": PLAIN[recipe.method], "target_modules": targets})


def over_plain(model: Model, time_of: Callable[[Recipe], TimeEstimate | None], recipe: Recipe) -> float | None:
    """Step time of a DoRA recipe over that of the same recipe without DoRA; None where one of them is not known."""
    try:
        mine, other = time_of(recipe), time_of(plain(model, recipe))
    except InputError:  # a traced model lacks what was not traced
        return None
    if mine is None or other is None or not other.step_s.likely:
        return None
    return mine.step_s.likely / other.step_s.likely


def step_ratio(context: Context, method: Method = "dora", **changes: object) -> float | None:
    """`over_plain` at the recipe of a DoRA row, with some of its fields changed."""
    recipe = context.candidates[method].recipe.model_copy(update=changes)
    return over_plain(context.model, context.time_of, recipe)


def recommendable(context: Context) -> bool:
    """Whether DoRA can be recommended: it fits, and its premise holds, is not known, or was waived.

    It is waived where the question fixes the target modules, and where LoRA does not fit.
    """
    if not context.fits("dora"):
        return False
    ratio = step_ratio(context)
    waived = "target_modules" in context.question.fixed or not context.fits("lora")
    return ratio is None or ratio <= AT_ALL or waived
