from __future__ import annotations

import pytest

from advisor.specs import Term
from advisor.terms import TermName


def test_its_json_is_the_name_that_people_read() -> None:
    term = Term(name=TermName.CONTEXT, bytes=7)
    assert term.model_dump(mode="json") == {"name": "CUDA context", "bytes": 7}
    assert Term.model_validate_json('{"name": "CUDA context", "bytes": 7}') == term
    assert f"{TermName.CONTEXT}" == "CUDA context"


def test_an_older_spelling_is_still_read() -> None:
    found = Term.model_validate_json('{"name": "quantisation constants", "bytes": 1}')
    assert found.name is TermName("quantisation constants") is TermName.QUANTIZATION_CONSTANTS
    assert found.model_dump(mode="json")["name"] == "quantization constants"


def test_another_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="weights"):
        TermName("weights")
