"""Tokens by a tokenizer's own file: special tokens, chat templates, and where the file is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from advisor.dataset.counting import (
    PER_CHAT,
    PER_TURN,
    Estimated,
    Found,
    Tokenized,
    _pieces,
    find_tokenizer,
)
from advisor.dataset.forms import Example, Turn
from advisor.dataset.rows import BadRow
from advisor.errors import BadValue, SourceUnavailable
from advisor.interval import Interval
from tests.dataset.files import ROWS, written

CHAT = Example("", (Turn("user", "one two"), Turn("assistant", "three")))
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'judge' %}{{ raise_exception('no judges') }}{% endif %}"
    "<turn> {{ message['role'] }} {% generation %}{{ message['content'] }}{% endgeneration %} </turn> {% endfor %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer of words: white space splits, `<s>` comes first, all words are known or <unk>."""
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<unk>", "<s>", "<turn>", "</turn>", "user", "assistant", "one", "two", "three"]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.enable_truncation(5)
    made.enable_padding(length=64)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def give_template(folder: Path, **more: object) -> None:
    pytest.importorskip("jinja2")
    config = {"chat_template": TEMPLATE, "bos_token": {"content": "<s> "}, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_text_has_its_special_tokens_and_an_end(folder: Path) -> None:
    counter = Tokenized(folder / "tokenizer.json")
    found = list(counter.lengths([Example("one two three one two three one"), Example("")]))
    assert found == [Interval.exact(9), Interval.exact(2)]
    assert counter.exact
    assert counter.name == f"counted by {folder / 'tokenizer.json'}"


def test_a_chat_is_counted_as_its_template_writes_it(folder: Path) -> None:
    give_template(folder)
    counter = Tokenized(folder / "tokenizer.json")
    assert list(counter.lengths([CHAT, Example("one"), CHAT])) == [Interval.exact(n) for n in (10, 3, 10)]
    assert counter.exact


def test_a_template_in_its_own_file_or_among_others(folder: Path) -> None:
    give_template(folder, chat_template=[{"name": "default", "template": "one"}, {"name": "other", "template": "x x"}])
    assert list(Tokenized(folder / "tokenizer.json").lengths([CHAT])) == [Interval.exact(1)]
    (folder / "chat_template.jinja").write_text("one two")
    assert list(Tokenized(folder / "tokenizer.json").lengths([CHAT])) == [Interval.exact(2)]


def test_what_the_template_refuses_is_a_bad_row(folder: Path) -> None:
    give_template(folder)
    judged = Example("", (Turn("judge", "one"),))
    first, second = Tokenized(folder / "tokenizer.json").lengths([judged, CHAT])
    assert isinstance(first, BadRow)
    assert str(first) == "the chat template refuses it: no judges"
    assert second == Interval.exact(10)


@pytest.mark.parametrize("template", [None, "{% endif %}", 5])
def test_without_a_template_the_marks_are_a_range(folder: Path, template: object) -> None:
    if template is not None:
        give_template(folder, chat_template=template)
    counter = Tokenized(folder / "tokenizer.json")
    (found,) = counter.lengths([CHAT])
    assert found == Interval.exact(3).plus(PER_TURN.times(2)).plus(PER_CHAT)
    assert not counter.exact
    assert "its chat template estimated" in counter.name


def test_a_long_text_is_counted_in_pieces(folder: Path) -> None:
    counter = Tokenized(folder / "tokenizer.json")
    (found,) = counter.lengths([Example("one two " * 100_000)])
    assert found == Interval.exact(200_002)


@pytest.mark.parametrize("text", ["", "a" * 500_000, "ab " * 200_000, "a\n" * 150_000])
def test_pieces_are_the_text(text: str) -> None:
    pieces = list(_pieces(text))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 200_000


def test_halves_of_surrogate_pairs_are_counted(folder: Path) -> None:
    assert list(Tokenized(folder / "tokenizer.json").lengths([Example("\ud800 one")])) == [Interval.exact(4)]


def test_an_estimate_says_why_it_is_one() -> None:
    counter = Estimated(128_000, "no tokenizer")
    assert counter.name == "estimated from characters (no tokenizer; --tokenizer FILE counts them)"
    text, chat = counter.lengths([Example("one two three"), CHAT])
    assert isinstance(text, Interval)
    assert isinstance(chat, Interval)
    assert text.low < text.likely < text.high < chat.high
    assert chat.low > PER_TURN.low * 2


def test_it_is_found_beside_the_model_or_where_it_is_said(folder: Path, tmp_path: Path) -> None:
    file = folder / "tokenizer.json"
    (folder / "config.json").write_text("{}")
    assert find_tokenizer(None, str(folder), "") == Found(file)
    assert find_tokenizer(None, str(folder / "config.json"), "") == Found(file)
    for asked in (file, folder, folder / "config.json"):
        assert find_tokenizer(str(asked), "llama-8b", "meta-llama/Llama-3.1-8B") == Found(file)
    found = find_tokenizer(None, "llama-8b", "meta-llama/Llama-3.1-8B")
    assert found == Found(None, "no tokenizer of meta-llama/Llama-3.1-8B on this machine")


def test_it_is_found_in_the_hubs_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    snapshot = tmp_path / "hub" / "models--acme--anvil" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0")
    (snapshot / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for asked, hub_id in ((None, "acme/anvil"), ("acme/anvil", "")):
        found = find_tokenizer(asked, "", hub_id)
        assert found.file is not None
        assert found.file.resolve() == (snapshot / "tokenizer.json").resolve()


@pytest.mark.parametrize("asked", ["nowhere", "/", "a/b", "~nobody/x", "\x7f" * 300, "rows.txt"])
def test_what_is_no_tokenizer_is_refused(asked: str) -> None:
    with pytest.raises(BadValue, match=r"--tokenizer is .*give a tokenizer\.json"):
        find_tokenizer(asked, "", "")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\x00\xff", b'{"model": {"type": "BPE"}}'])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(BadValue, match=r"not a tokenizer\.json that can be loaded") as caught:
        Tokenized(path)
    assert str(caught.value).isprintable()


def test_rows_are_counted_by_it(folder: Path, tmp_path: Path) -> None:
    from advisor.dataset.summary import measure

    path = written(tmp_path, "rows.jsonl", [ROWS["prompt_completion"]] * 300)
    found = measure(str(path), Tokenized(folder / "tokenizer.json"))
    assert found.mean_tokens == found.longest_tokens == Interval.exact(1 + 6 + 1)


class Missing:
    """Finds these packages missing, as in a light install."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"no {name}", name=name)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for loaded in [module for module in sys.modules if module.partition(".")[0] in names]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [Missing(*names), *sys.meta_path])


def test_without_the_library_a_tokenizer_asked_for_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tokenizers")
    with pytest.raises(SourceUnavailable, match="needs a package: `pip install tokenizers`"):
        Tokenized(folder / "tokenizer.json")
    found = find_tokenizer(None, str(folder), "")
    assert found == Found(None, "the package tokenizers is not installed")


def test_without_jinja2_the_marks_are_a_range(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_template(folder)
    without(monkeypatch, "jinja2")
    counter = Tokenized(folder / "tokenizer.json")
    (found,) = counter.lengths([CHAT])
    assert isinstance(found, Interval)
    assert not found.is_exact


def test_without_pyarrow_parquet_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.dataset.files import measured

    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    without(monkeypatch, "pyarrow")
    with pytest.raises(SourceUnavailable, match="needs a package: `pip install pyarrow`"):
        measured(tmp_path / "rows.parquet")
