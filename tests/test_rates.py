"""Learning rates: by method and size, and the same in every trainer's file."""

from __future__ import annotations

import re

import pytest

from advisor.advice.advise import advise
from advisor.export.training_file import training_file
from advisor.rates import LARGE, learning_rate
from advisor.specs import METHODS, Method
from tests.fakes import MODEL, FakeCatalog, card, fake_estimate


def test_adapters_learn_faster_than_all_weights_and_large_models_slower() -> None:
    rates = {method: learning_rate(method, LARGE).value for method in METHODS}
    assert rates == {"full": 1e-5, "lora": 2e-4, "dora": 1e-4, "qlora": 2e-4, "qdora": 1e-4}
    assert learning_rate("qlora", LARGE + 1).value == 1e-4
    assert learning_rate("full", LARGE + 1).value == 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_each_says_how_good_its_evidence_is(method: Method) -> None:
    for parameters in (LARGE, LARGE + 1):
        rate = learning_rate(method, parameters)
        assert rate.evidence.endswith(("(anecdote)", "(benchmark suite)", "(swept study)"))
        assert rate.source.startswith("https://")


@pytest.mark.parametrize("trainer", ["transformers", "trl", "axolotl", "llamafactory", "unsloth"])
@pytest.mark.parametrize("method", METHODS)
def test_every_file_has_the_recommended_rate(trainer: str, method: Method) -> None:
    answer = advise(
        MODEL, card(80), 3000, catalog=FakeCatalog(), estimator=fake_estimate, trainer=trainer, method=method
    )
    assert answer.recommendation is not None
    written = re.findall(r"learning_rate\W+([\d.e-]+)", str(training_file(answer, answer.candidate(method))))
    assert [float(value) for value in written] == [answer.recommendation.learning_rate]
