"""DoRA is recommended where its step costs what the rules presume, and its price is said."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.answer import Advice
from advisor.rules.premise import AT_ALL, EVERYWHERE, PLAIN, over_plain, plain
from advisor.specs import Estimate, GpuSpec, ModelSpec, Placement, Recipe, TimeEstimate, Workload
from tests.fakes import MODEL, FakeCatalog, card, fake_estimate
from tests.rules.test_warnings import MIXTURE


class Priced:
    """An estimator whose DoRA takes so many times LoRA's step, by target modules; dropout doubles that."""

    def __init__(self, attention: float, everywhere: float) -> None:
        self.times = {("attention",): attention, ("all-linear",): everywhere}

    def __call__(
        self, m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, placement: Placement, profile: Any
    ) -> Estimate:
        one = fake_estimate(m, recipe, workload, gpu, placement)
        if not recipe.is_dora or one.time is None:
            return one
        without = recipe.model_copy(update={"method": PLAIN[recipe.method]})
        time = fake_estimate(m, without, workload, gpu, placement).time
        assert time is not None
        times = self.times[recipe.target_modules] * (2 if recipe.dropout else 1)
        scaled = {name: getattr(time, name).times(times) for name in ("micro_step_s", "step_s", "total_s")}
        return one.model_copy(update={"time": time.model_copy(update=scaled)})


def ask(attention: float, everywhere: float, gpu: GpuSpec | None = None, **knobs: Any) -> Advice:
    knobs = {"examples": 3000, **knobs}
    return advise(MODEL, gpu or card(24), catalog=FakeCatalog(), estimator=Priced(attention, everywhere), **knobs)


def said(answer: Advice, code: str) -> list[str]:
    assert answer.recommendation is not None
    return [reason.text for reason in answer.recommendation.reasons if reason.code == code]


def chosen(answer: Advice) -> tuple[str, tuple[str, ...]]:
    assert answer.recommendation is not None
    method = answer.recommendation.method
    return method, answer.candidate(method).recipe.target_modules


@pytest.mark.parametrize(
    ("attention", "everywhere", "expected"),
    [
        (1.2, EVERYWHERE - 0.01, ("dora", ("all-linear",))),
        (1.2, EVERYWHERE + 0.01, ("dora", ("attention",))),
        (AT_ALL - 0.01, 4.0, ("dora", ("attention",))),
        (AT_ALL + 0.01, 4.0, ("lora", ("all-linear",))),
    ],
)
def test_dora_is_used_where_its_premise_holds(
    attention: float, everywhere: float, expected: tuple[str, tuple[str, ...]]
) -> None:
    assert chosen(ask(attention, everywhere)) == expected


def test_the_attention_only_is_explained_by_both_ratios() -> None:
    price = said(ask(1.4, 3.0), "ADV003")[1]
    assert price.startswith(
        "On the attention only a step takes 1.40 times LoRA's by the same recipe (3.00 on all linear"
    )
    assert "on all linear layers here" in price, "whose time LoRA's is"
    everywhere = said(ask(1.2, 1.3), "ADV003")[1]
    assert everywhere.startswith("On all linear layers a step takes 1.30 times LoRA's by the same recipe; DoRA adds")


def test_lora_states_doras_price() -> None:
    text = said(ask(2.6, 5.0), "ADV003")[0]
    assert text.startswith(
        "LoRA, although 3,000 examples are few enough for DoRA: even on the attention only a step takes 2.60 times "
        "LoRA's by the same recipe (5.00 on all linear layers), more than 2.5; "
    )
    assert "DoRA adds" in text


def test_dropout_that_breaks_the_premise_is_named() -> None:
    text = said(ask(1.5, 1.5, dropout=0.1), "ADV003")[0]
    assert "With --dropout 0 in place of the question's 0.1 it would take 1.50 times" in text
    assert "trl's default 0.05" in said(ask(1.5, 1.5, trainer="trl", base_dtype="bfloat16"), "ADV003")[0]
    assert "--dropout 0" not in said(ask(3.0, 3.0, dropout=0.1), "ADV003")[0], "that would not be enough"


def test_fixed_targets_are_kept_with_the_price_first() -> None:
    answer = ask(1.4, 4.0, target_modules="all-linear")
    assert chosen(answer) == ("dora", ("all-linear",))
    first = said(answer, "ADV003")[0]
    assert "; on all linear layers a step takes 4.00 times LoRA's by the same recipe; DoRA adds" in first


def test_a_card_of_unknown_speed_is_judged_by_cards_of_its_size() -> None:
    unknown = GpuSpec(name="odd", generation="", memory_bytes=24 * 2**30, marketed_gb=24)
    assert chosen(ask(1.2, 4.0, unknown)) == ("dora", ("attention",))
    assert chosen(ask(2.6, 4.0, unknown)) == ("lora", ("all-linear",))


def test_without_any_times_dora_is_recommended() -> None:
    class Nothing(FakeCatalog):
        def cards_near(self, memory_bytes: int) -> tuple[GpuSpec, ...]:
            return ()

    unknown = GpuSpec(name="odd", generation="", memory_bytes=24 * 2**30, marketed_gb=24)
    answer = advise(MODEL, unknown, 3000, catalog=Nothing(), estimator=Priced(9, 9))
    assert chosen(answer) == ("dora", ("all-linear",))


def test_a_mixture_is_compared_on_the_same_layers() -> None:
    """PEFT's LoRA would adapt the experts, which its DoRA cannot."""
    recipe = Recipe(method="dora")
    assert plain(MIXTURE, recipe).target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert plain(MODEL, recipe).target_modules == ("all-linear",)
    seen: list[Recipe] = []

    def time_of(one: Recipe) -> TimeEstimate | None:
        seen.append(one)
        return fake_estimate(MIXTURE, one, Workload(), card(80)).time

    assert over_plain(MIXTURE, time_of, recipe) is not None
    assert [one.method for one in seen] == ["dora", "lora"]


@pytest.fixture(scope="module")
def first_example() -> Advice:
    return advise("llama-8b", "24GB", 3000)


def test_the_first_example_keeps_dora_at_a_fair_price(first_example: Advice) -> None:
    assert first_example.recommendation is not None
    assert (first_example.recommendation.method, first_example.recommendation.rank) == ("dora", 16)
    dora, lora = first_example.candidate("dora").time, first_example.candidate("lora").time
    assert dora is not None
    assert lora is not None
    assert dora.total_s.likely <= 1.7 * lora.total_s.likely


def test_the_first_example_gives_few_reasons(first_example: Advice) -> None:
    assert first_example.recommendation is not None
    assert len(first_example.recommendation.reasons) <= 4
