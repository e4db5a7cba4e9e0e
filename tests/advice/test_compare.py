"""Several models and cards: each pair's answer is that of `advise` alone."""

from __future__ import annotations

import pytest

from advisor.advice.advise import advise
from advisor.advice.compare import compare
from advisor.errors import InputError, UnknownName
from tests.fakes import FakeCatalog, fake_estimate

DOOR = {"catalog": FakeCatalog(), "estimator": fake_estimate}


def test_each_pair_is_the_answer_of_advise_alone_to_the_byte() -> None:
    pairs = compare(("llama-3.2-1b", "qwen2.5-0.5b"), ("24GB", "rtx4090"), ("0.5", "1"), examples="3000", rank="8")
    assert [(pair.model, pair.gpu) for pair in pairs] == [
        ("llama-3.2-1b", "24GB"),
        ("llama-3.2-1b", "rtx4090"),
        ("qwen2.5-0.5b", "24GB"),
        ("qwen2.5-0.5b", "rtx4090"),
    ]
    for pair, price in zip(pairs, ("0.5", "1", "0.5", "1"), strict=True):
        alone = advise(pair.model, pair.gpu, examples="3000", rank="8", price_per_hour=price)  # type: ignore[arg-type]
        assert pair.advice.model_dump_json() == alone.model_dump_json()


def test_one_price_holds_for_all_cards() -> None:
    pairs = compare(["small-1b"], ["eight", "eighty"], [2.0], **DOOR)  # type: ignore[arg-type]
    assert all(pair.advice.candidates[-1].cost is not None for pair in pairs)
    pairs = compare(["small-1b"], ["eight", "eighty"], **DOOR)  # type: ignore[arg-type]
    assert all(pair.advice.candidates[-1].cost is None for pair in pairs)


def test_other_numbers_of_prices_are_refused() -> None:
    with pytest.raises(InputError, match="2 of --price-per-hour for 3 of --gpu: give one for all"):
        compare(["small-1b"], ["four", "eight", "eighty"], [1.0, 2.0], **DOOR)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no --gpu to compare"):
        compare(["small-1b"], [], **DOOR)  # type: ignore[arg-type]


def test_bad_input_in_one_pair_is_an_error() -> None:
    with pytest.raises(UnknownName, match="unknown GPU 'fore'; did you mean four"):
        compare(["small-1b"], ["eight", "fore"], **DOOR)  # type: ignore[arg-type]


def test_the_order_of_the_flags_does_not_matter() -> None:
    (one,) = compare(["small-1b"], ["eight"], [2.0], rank=8, examples=3000, **DOOR)  # type: ignore[arg-type]
    alone = advise("small-1b", "eight", examples=3000, price_per_hour=2.0, rank=8, **DOOR)  # type: ignore[arg-type]
    assert one.advice.fixed == ("examples", "rank", "price_per_hour")
    assert one.advice == alone
