"""Our JSON against pydantic's: the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from advisor.advice.advise import advise
from advisor.frozen import _adapter
from advisor.json_text import json_text

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('abc é"\n', max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, 0, 2, 4]))
def test_any_value_is_written_alike(value: Any, indent: int | None) -> None:
    written = json_text(value, indent)
    assert written == to_json(value, indent=indent).decode()
    json.loads(written)


@pytest.mark.parametrize("knobs", [{}, {"gpus": 4}, {"method": "full"}], ids=str)
def test_an_answer_is_written_alike(knobs: dict[str, Any]) -> None:
    answer = advise("llama-8b", "24GB", 3000, **knobs)
    adapter = _adapter(type(answer))
    assert answer.model_dump_json(indent=2) == adapter.dump_json(answer, indent=2).decode()
    assert answer.model_dump_json() == adapter.dump_json(answer).decode()
