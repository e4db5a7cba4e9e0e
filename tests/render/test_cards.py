"""What is said of several cards."""

from __future__ import annotations

from io import StringIO

from advisor import advise
from advisor.render.answer import render
from advisor.render.cards import card_lines


def test_other_engines_and_numbers_of_cards_are_a_sentence_each() -> None:
    answer = advise("llama-3.1-8b", "h100", 3000, gpus=4, method="lora")
    engines, cards = card_lines(answer)
    assert engines.startswith("Other engines: fsdp2 ")
    assert "4 by ddp" in cards
    assert "Fastest: " in cards
    assert "Cheapest: " in cards
    assert card_lines(advise("llama-3.1-8b", "h100", 3000, method="lora")) == ()


def test_explain_has_both_as_tables() -> None:
    out = StringIO()
    render(advise("llama-3.1-8b", "h100", 3000, gpus=2, method="lora"), out, explain=True)
    text = out.getvalue()
    assert "Fewer and more cards" in text
    assert "card-hours" in text
