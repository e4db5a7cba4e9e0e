"""The same question of several models and cards: each pair's answer is the one that `advise` alone gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import advisor.catalog
from advisor.advice.advise import advise
from advisor.advice.job import Estimator
from advisor.answer import Advice
from advisor.costs.estimation import estimate
from advisor.errors import InputError
from advisor.frozen import Frozen

if TYPE_CHECKING:
    from advisor.advice.catalogs import Catalog


class Pair(Frozen):
    """The answer for one model on one card, both as they were asked for."""

    model: str
    gpu: str
    advice: Advice


def compare(
    models: Sequence[str],
    cards: Sequence[str],
    prices_per_hour: Sequence[object] = (),
    *,
    catalog: Catalog = advisor.catalog,
    estimator: Estimator = estimate,
    **knobs: object,
) -> tuple[Pair, ...]:
    """`advise()` for every model on every card, the cards of one model together.

    `prices_per_hour` are none, one for all cards, or one for each of `cards` in their order; `knobs` are those of
    `advise()`. Raises AdvisorError as `advise()` does, and InputError for another number of prices.
    """
    for name, given in (("model", models), ("gpu", cards)):
        if not given:
            raise InputError(f"no --{name} to compare: give --{name} once or more")
    if len(prices_per_hour) not in (0, 1, len(cards)):
        raise InputError(
            f"{len(prices_per_hour)} of --price-per-hour for {len(cards)} of --gpu: give one for all cards, or one for "
            "each in the same order"
        )
    prices = [*prices_per_hour] * (len(cards) if len(prices_per_hour) == 1 else 1) or [None] * len(cards)
    return tuple(
        Pair(
            model=model,
            gpu=gpu,
            advice=advise(model, gpu, catalog=catalog, estimator=estimator, price_per_hour=price, **knobs),  # type: ignore[arg-type]
        )
        for model in models
        for gpu, price in zip(cards, prices, strict=True)
    )
