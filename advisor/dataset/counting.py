"""Tokens of examples: by the model's tokenizer where its file is at hand, else estimated from their characters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from advisor.dataset.characters import CharacterRates
from advisor.dataset.chat import Render, load_template
from advisor.dataset.forms import Example
from advisor.dataset.rows import BadRow, shown
from advisor.errors import BadValue, SourceUnavailable
from advisor.interval import Interval

TOKENIZER_FILE = "tokenizer.json"
PIECE_CHARACTERS = 200_000
"""Longer texts are tokenized in pieces that end at white space: each border may cost or save a token."""

PER_TURN = Interval(2.0, 5.0, 6.0)
"""Tokens that a chat template adds to a message: the marks around it and its role. Source: the templates of Mistral
(2 to 3), Llama 3, ChatML as Qwen and others use it, and Gemma (5)."""
PER_CHAT = Interval(1.0, 2.0, 40.0)
"""Tokens that it adds to a chat: its begin, and a system message that some insert unasked (Qwen 2.5: 20, Llama 3.1:
about 30)."""
PER_TEXT = Interval(1.0, 1.0, 2.0)
"""Tokens around a text: its end, and with some tokenizers its begin."""


class Counter(Protocol):
    """Says how many tokens training makes of examples."""

    @property
    def name(self) -> str:
        """By whom they were counted, for people."""
        ...

    def lengths(self, examples: Sequence[Example]) -> Iterator[Interval | BadRow]:
        """Tokens of each example, or why training could not read it."""
        ...


class Estimated:
    """Estimates tokens from characters; a chat template's part is a stated range a message."""

    def __init__(self, vocabulary_size: int, because: str) -> None:
        self.name = f"estimated from characters ({because}; --tokenizer FILE counts them)"
        self._rates = CharacterRates(vocabulary_size)

    def lengths(self, examples: Sequence[Example]) -> Iterator[Interval | BadRow]:
        """Tokens of each example, as a range."""
        for example in examples:
            if not example.turns:
                yield self._rates.tokens(example.text).plus(PER_TEXT)
                continue
            yield self._rates.tokens(_contents(example)).plus(_overhead(example))


class Tokenized:
    """Counts with the model's own tokenizer, and with its chat template where that can be rendered."""

    def __init__(self, file: Path) -> None:
        """Raises SourceUnavailable without the library, BadValue for a file that it cannot load."""
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise SourceUnavailable(
                f"counting with {str(file)!r} needs a package: `pip install tokenizers`, or leave --tokenizer out"
            ) from None
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        except Exception as error:  # the library raises plain Exceptions
            wrong = f"not a tokenizer.json that can be loaded ({shown(error)})"
            raise BadValue("--tokenizer", str(file), wrong) from None
        self._render: Render | None = load_template(file.parent)
        self._file, self.exact = str(file), True

    @property
    def name(self) -> str:
        """The tokenizer's file."""
        return f"counted by {self._file}" + ("" if self.exact else ", the marks of its chat template estimated")

    def lengths(self, examples: Sequence[Example]) -> Iterator[Interval | BadRow]:
        """Tokens of each example; a range only for chats whose template cannot be rendered."""
        texts: list[str | BadRow] = [self._text(example) for example in examples]
        plain = [text for text, example in zip(texts, examples, strict=True) if not example.turns]
        chats = [text for text, example in zip(texts, examples, strict=True) if example.turns]
        counts = iter(self._counts(plain, special=True)), iter(self._counts(chats, special=False))
        for text, example in zip(texts, examples, strict=True):
            count = next(counts[bool(example.turns)])
            if isinstance(text, BadRow):
                yield text
            elif not example.turns:
                yield Interval.exact(count + 1)  # trl appends the end-of-sequence token
            elif self._render is not None:
                yield Interval.exact(max(1, count))
            else:
                self.exact = False
                yield Interval.exact(count).plus(_overhead(example))

    def _text(self, example: Example) -> str | BadRow:
        if not example.turns:
            return _encodable(example.text)
        try:
            return _encodable(self._render(example) if self._render is not None else _contents(example))
        except BadRow as refused:
            return refused

    def _counts(self, texts: Sequence[str | BadRow], special: bool) -> list[int]:
        """Tokens of each text; 0 for a row that is not one."""
        pieces = [list(_pieces(text)) if isinstance(text, str) else [] for text in texts]
        flat = [piece for several in pieces for piece in several]
        found = iter(self._tokenizer.encode_batch_fast(flat, add_special_tokens=special))
        extra = self._tokenizer.num_special_tokens_to_add(False) if special else 0
        return [sum(len(next(found)) for _ in several) - extra * max(0, len(several) - 1) for several in pieces]


def _contents(example: Example) -> str:
    """All texts of a chat, and the tools that it may call as JSON."""
    texts = [turn.content for turn in example.turns]
    if example.tools:
        texts.append(example.tools if isinstance(example.tools, str) else json.dumps(example.tools, default=str))
    return "\n".join(texts)


def _overhead(example: Example) -> Interval:
    return PER_TURN.times(len(example.turns)).plus(PER_CHAT)


def _encodable(text: str) -> str:
    """`text` with halves of surrogate pairs, which no tokenizer takes, replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _pieces(text: str) -> Iterator[str]:
    """`text`, cut before white space into pieces that are about as long as PIECE_CHARACTERS at most."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        cut = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
        end = cut if cut > start else end
        yield text[start:end]
        start = end
    yield text[start:]


class Found(NamedTuple):
    """A tokenizer's file, or why there is none."""

    file: Path | None
    because: str = ""


def find_tokenizer(asked: str | None, model: str, hub_id: str) -> Found:
    """The tokenizer.json to count with: the one asked for, beside the model's config.json, or in the local Hub cache.

    `asked` is a file, a folder, or a Hub id in the cache; the network is never used. Raises BadValue when it is none.
    """
    if asked is not None:
        file = _beside(asked) or _cached(asked)
        if file is None:
            allowed = (
                "give a tokenizer.json, a folder that holds one, or a Hub id whose tokenizer is in the local cache"
            )
            raise BadValue("--tokenizer", asked, allowed)
        return Found(file)
    file = (_beside(model) if model else None) or _cached(hub_id)
    if file is None:
        return Found(None, f"no tokenizer of {hub_id} on this machine" if hub_id else "no model and no tokenizer given")
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        return Found(None, "the package tokenizers is not installed")
    return Found(file)


def _beside(text: str) -> Path | None:
    """The tokenizer.json at this path, in this folder, or beside this config.json."""
    try:
        path = Path(text).expanduser()
        if path.is_file() and path.name != "config.json":
            return path if path.suffix == ".json" else None
        file = (path if path.is_dir() else path.parent if path.is_file() else path) / TOKENIZER_FILE
        return file if file.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _cached(hub_id: str) -> Path | None:
    from advisor.catalog.hub import cached_file

    return cached_file(hub_id, TOKENIZER_FILE)
