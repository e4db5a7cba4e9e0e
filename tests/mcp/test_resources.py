"""Resources and the prompt: each that is offered can be read, and what is not is refused by name."""

from __future__ import annotations

import json

import pytest

from advisor.answer import Advice
from advisor.catalog import find_gpus, find_model
from advisor.errors import UnknownName
from advisor.knobs import BY_NAME
from advisor.mcp.resources import FIXED, PROMPT_ARGUMENTS, SCHEME, TEMPLATES, prompt_text, read
from advisor.rules import find_rule


def test_each_that_is_offered_can_be_read() -> None:
    examples = {"code": "ADV003", "name": {"models": "Qwen%2FQwen3-8B", "gpus": "rtx4090"}}
    for path in TEMPLATES:
        kind, _, name = path.partition("/")
        value = examples[name.strip("{}")]
        assert json.loads(read(f"{SCHEME}{kind}/{value if isinstance(value, str) else value[kind]}"))
    assert all(json.loads(read(SCHEME + path)) for path in FIXED)


def test_they_say_what_the_library_says() -> None:
    assert json.loads(read("advisor://models/Qwen/Qwen3-8B")) == find_model("qwen3-8b").model_dump(mode="json")
    assert json.loads(read("advisor://gpus/rtx4090"))["memory_bytes"] == find_gpus("rtx4090")[0].memory_bytes
    assert len(json.loads(read("advisor://gpus/24GB"))) == len(find_gpus("24GB"))
    assert json.loads(read("advisor://rules/adv003"))["title"] == find_rule("ADV003").title
    assert json.loads(read("advisor://schema/v1")) == Advice.model_json_schema()
    assert set(json.loads(read("advisor://knobs"))) == set(BY_NAME)


@pytest.mark.parametrize(
    "uri",
    ["", "advisor://", "advisor://schema/v2", "file:///etc/passwd", "advisor://rules/", "advisor://rules/ADV999",
     "advisor://models/none", "advisor://gpus/none", "http://rules/ADV003"],
)  # fmt: skip
def test_others_are_refused(uri: str) -> None:
    with pytest.raises(UnknownName):
        read(uri)


def test_the_prompt_says_what_is_known() -> None:
    assert "model: qwen3-8b" in prompt_text({"model": "qwen3-8b", "gpu": ""})
    assert "gpu:" not in prompt_text({"model": "qwen3-8b", "gpu": ""})
    assert "\n" not in prompt_text(dict.fromkeys(PROMPT_ARGUMENTS, "a\nb"))
    with pytest.raises(UnknownName):
        prompt_text({"card": "rtx4090"})
