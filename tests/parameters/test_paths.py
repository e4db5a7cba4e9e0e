"""Patterns of target modules, as peft matches them."""

from __future__ import annotations

import pytest

from advisor.catalog.models import find_model
from advisor.errors import BadValue
from advisor.parameters.paths import is_pattern, named_by

LLAMA = find_model("llama-3.1-8b")


@pytest.mark.parametrize(
    ("model", "pattern", "names"),
    [
        ("llama-3.1-8b", r".*\.(q|v)_proj$", ("q_proj", "v_proj")),
        ("llama-3.1-8b", r".*self_attn.*", ("q_proj", "k_proj", "v_proj", "o_proj")),
        ("llama-3.1-8b", r"^model\.layers\.\d+\.mlp\.(gate|down)_proj", ("gate_proj", "down_proj")),
        ("gpt2", r".*attn\.c_proj", ("attn.c_proj",)),
        ("granite-4.0-h-1b", r".*mamba\..*", ("in_proj", "out_proj")),
        ("falcon-h1-7b", r".*(self_attn\.k|feed_forward\.up)_proj", ("k_proj", "up_proj")),
        ("opt-1.3b", r".*fc\d", ("fc1", "fc2")),
        ("deepseek-r1-distill-qwen-7b", r".*[kv]_proj", ("k_proj", "v_proj")),
        ("gemma-3-4b", r"model\.language_model\.layers\.\d+\.self_attn\.(q|v)_proj", ("q_proj", "v_proj")),
        ("gemma-3-4b", r"model\.layers\.\d+\.mlp\.up_proj", ("up_proj",)),
        ("gemma-3n-e2b", r"model.language_model.layers.[\d]+.(mlp|self_attn).(up|q)_proj", ("q_proj", "up_proj")),
        ("lfm2-8b-a1b", r"model.layers.[\d]+.(mlp|self_attn).(up|q|k)_proj", ("q_proj", "k_proj")),
    ],
)
def test_a_pattern_names_layers(model: str, pattern: str, names: tuple[str, ...]) -> None:
    assert named_by(find_model(model), (pattern,)) == names


def test_names_stay_names() -> None:
    assert not is_pattern(("q_proj",))
    assert named_by(LLAMA, ("q_proj", "nothing")) == ("q_proj", "nothing")


@pytest.mark.parametrize(
    ("model", "pattern", "why"),
    [
        ("llama-3.1-8b", "q_proj$", "matches no path such as model.layers.0.self_attn.q_proj"),
        ("llama-3.1-8b", "(q_proj", "is no regular expression"),
        ("llama-3.1-8b", r".*layers\.1\d\..*_proj", "picks some layers only"),
        ("llama-3.1-8b", r"model\.language_model\..*_proj", "matches no path such as model.layers.0"),
        ("voxtral-mini-3b", r"language_model\..*_proj", "matches no path such as model.language_model.layers.0"),
        ("mixtral-8x7b", ".*_proj|.*w1", "has experts"),
    ],
)
def test_what_a_pattern_cannot_say(model: str, pattern: str, why: str) -> None:
    with pytest.raises(BadValue, match=why):
        named_by(find_model(model), (pattern,))
