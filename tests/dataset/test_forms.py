"""What is read of a row, and in which order forms are recognized."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.dataset.forms import Example, Turn, recognized
from advisor.dataset.rows import BadRow
from tests.dataset.files import ASKED, COLUMNS, NOISE, ROWS, SAID

TURNS = (Turn("user", ASKED), Turn("assistant", SAID))


@pytest.mark.parametrize("name", ROWS)
def test_forms_are_recognized_among_other_columns(name: str) -> None:
    form = recognized(NOISE | ROWS[name], {}, "rows.jsonl")
    assert (form.name, form.columns) == (name, COLUMNS[name])
    expected = Example(ASKED + SAID) if name in ("text", "prompt_completion") else Example("", TURNS)
    assert form.read(NOISE | ROWS[name]) == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sharegpt", "prompt_completion"),
        ("sharegpt", "messages"),
        ("prompt_completion", "messages"),
        ("messages", "text"),
        ("text", "alpaca"),
    ],
)
def test_the_order_is_trls(first: str, second: str) -> None:
    assert recognized(ROWS[second] | ROWS[first], {}, "rows.jsonl").name == first


def test_prompt_and_completion_may_be_chats() -> None:
    asked, said = ([{"role": turn.role, "content": turn.content}] for turn in TURNS)
    row = {"prompt": asked, "completion": said, "tools": [{"name": "add"}]}
    form = recognized(row, {}, "rows.jsonl")
    assert form.name == "prompt_completion"
    assert form.read(row) == Example("", TURNS, [{"name": "add"}])


def test_conversations_with_roles_are_messages() -> None:
    row = {"conversations": ROWS["messages"]["messages"]}
    form = recognized(row, {}, "rows.jsonl")
    assert (form.name, form.columns) == ("messages", ("conversations",))
    assert form.read(row) == Example("", TURNS)


@pytest.mark.parametrize(("given", "columns"), [({}, ("instruction", "output")), ({"input": ""}, COLUMNS["alpaca"])])
def test_an_input_is_optional(given: dict[str, str], columns: tuple[str, ...]) -> None:
    row = {"instruction": "a", "output": "b", **given}
    form = recognized(row, {}, "rows.jsonl")
    assert form.columns == columns
    assert form.read(row).turns == (Turn("user", "a"), Turn("assistant", "b"))
    if given:
        assert form.read(row | {"input": "c"}).turns[0] == Turn("user", "a\nc")


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("text", {}, "text is missing or null, not text"),
        ("text", {"text": True}, "text is a boolean, not text"),
        ("messages", {"messages": []}, "messages is empty"),
        ("messages", {"messages": "hello"}, "messages is str, not a list"),
        ("messages", {"messages": [{"content": "a"}]}, "a message in messages has no role"),
        ("messages", {"messages": [{"role": "user"}]}, "a message in messages has no content"),
        ("sharegpt", {"conversations": [{"from": "gpt", "value": 3}]}, "something other than text"),
        ("prompt_completion", {"prompt": "a"}, "completion is missing"),
        ("prompt_completion", {"prompt": [{"role": "user", "content": "a"}], "completion": "b"}, "not a list"),
        ("alpaca", {"instruction": "a", "input": 3, "output": "b"}, "input is a number"),
    ],
)
def test_rows_that_training_could_not_read(name: str, row: dict[str, Any], words: str) -> None:
    form = recognized(ROWS[name], {}, "rows.jsonl")
    with pytest.raises(BadRow, match=words):
        form.read(row)
