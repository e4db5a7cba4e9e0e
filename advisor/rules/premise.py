"""The premise of the rules about DoRA: that its step takes not much longer than LoRA's.

Its authors and users report 1.3 to 1.5 times. That holds where few and small weights are adapted: for every adapted
weight PEFT's DoRA builds the product of both adapters and the norm of the sum, in every micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.specs import Estimate, Method, Recipe

PLAIN: dict[Method, Method] = {"dora": "lora", "qdora": "qlora"}
"""Each DoRA method's counterpart without magnitudes."""

EVERYWHERE = 1.5
"""At most this many times LoRA's step, and DoRA is used on all linear layers; beyond it on the attention's only."""
AT_ALL = 2.5
"""At most this many times LoRA's step with the same targets, and DoRA is recommended."""


def over_plain(estimate: Callable[[Recipe], Estimate], recipe: Recipe) -> float | None:
    """Step time of a DoRA recipe over that of the same recipe without DoRA; None where times are not known."""
    mine = estimate(recipe).time
    plain = estimate(recipe.model_copy(update={"method": PLAIN[recipe.method]})).time
    if mine is None or plain is None or not plain.step_s.likely:
        return None
    return mine.step_s.likely / plain.step_s.likely
