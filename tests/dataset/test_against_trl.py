"""Forms, token counts and packing against trl and transformers themselves."""

from __future__ import annotations

import copy
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from advisor.dataset.counting import Tokenized
from advisor.dataset.forms import Example, recognized
from advisor.dataset.lengths import Lengths
from advisor.interval import Interval
from tests.dataset.files import NESTED, ROWS

pytestmark = pytest.mark.slow  # trl loads torch

TEMPLATE = (
    "{%- if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}"
    "{%- for message in messages %}{{ '<|' + message.role + '|>\n' }}"
    "{% generation %}{{ message.content }}{% endgeneration %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def trl_utils() -> Any:
    return pytest.importorskip("trl.data_utils")


@pytest.mark.parametrize("form", ROWS)
def test_chats_are_what_trl_takes_for_chats(trl_utils: Any, form: str) -> None:
    row = ROWS[form]
    assert trl_utils.is_conversational_from_value(row) == (form == "sharegpt")
    converted = trl_utils.maybe_convert_to_chatml(copy.deepcopy(row))
    assert trl_utils.is_conversational(converted) == (form in NESTED)
    if form in NESTED:
        turns = recognized(row, {}, "rows.jsonl").read(row).turns
        assert [turn.content for turn in turns] == [message["content"] for message in converted["messages"]]


@pytest.mark.parametrize("limit", [64, 200])
def test_rows_are_packed_as_trl_packs_them(trl_utils: Any, limit: int) -> None:
    datasets = pytest.importorskip("datasets")
    draw = random.Random(limit)
    lengths = [draw.randint(1, 150) for _ in range(500)]
    data = datasets.Dataset.from_dict({"input_ids": [[7] * length for length in lengths]})
    packed = trl_utils.pack_dataset(data, limit, strategy="bfd")
    found = Lengths(Counter(lengths)).packed(limit)
    assert found.rows == len(packed)
    assert found.tokens == sum(map(len, packed["input_ids"]))


def test_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], show_progress=False, initial_alphabet=made.pre_tokenizer.alphabet()
    )
    made.train_from_iterator([str(row) for row in ROWS.values()], trainer)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", chat_template=TEMPLATE)
    theirs.save_pretrained(tmp_path)
    counter = Tokenized(tmp_path / "tokenizer.json")
    examples = [recognized(row, {}, "rows.jsonl").read(row) for row in ROWS.values()]
    examples.append(examples[1]._replace(tools=[{"name": "add", "text": "a < b"}]))
    found = list(counter.lengths(examples))
    assert found == [Interval.exact(tokens_by(theirs, example)) for example in examples]
    assert counter.exact


def tokens_by(tokenizer: Any, example: Example) -> int:
    if not example.turns:
        return len(tokenizer(example.text)["input_ids"]) + 1
    messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    ids = tokenizer.apply_chat_template(messages, tools=example.tools, tokenize=True, return_dict=True)["input_ids"]
    return len(ids)
