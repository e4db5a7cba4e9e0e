"""Checked access to the fields of a config.json: each is of the right type and in range, or one line says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from advisor.errors import BadConfig, UnsupportedArchitecture, shown

MAX_SIZE = 10_000_000


class Fields(NamedTuple):
    """The object `config` of the file `origin`; `prefix` is where it stands inside the file."""

    config: Mapping[str, Any]
    origin: str
    prefix: str = ""

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self.config.get(key) is not None

    def is_null(self, key: str) -> bool:
        """Whether the key is there and null (for `sliding_window` that says something)."""
        return key in self.config and self.config[key] is None

    def bad(self, key: str, problem: str) -> BadConfig:
        """The error for a field that cannot be used."""
        return BadConfig(f"{self.origin}: field '{self.prefix}{key}' {problem}")

    def unsupported(self, key: str, what: str) -> UnsupportedArchitecture:
        """The error for a field that asks for something that ModelSpec cannot express."""
        return UnsupportedArchitecture(
            f"{self.origin}: field '{self.prefix}{key}' asks for {what}, which the formula does not know;"
            f" `calibrate --dry-run --model {self.origin}` measures it without a GPU"
        )

    def _wrong(self, key: str, needed: str) -> BadConfig:
        return self.bad(key, f"is {shown(repr(self.config.get(key)), 60)}: {needed}")

    def key_of(self, *spellings: str) -> str:
        """The first of the `spellings` that the file uses (the first of all when it uses none).

        Two spellings with different values are an error.
        """
        used = [key for key in spellings if self.has(key)]
        for other in used[1:]:
            if self.config[other] != self.config[used[0]]:
                raise self._wrong(other, f"'{used[0]}' gives another value for the same setting")
        return used[0] if used else spellings[0]

    def size(self, key: str, default: int, *, maximum: int = MAX_SIZE, minimum: int = 1) -> int:
        """A whole number from `minimum` to `maximum`; `default` when the key is missing."""
        if key not in self.config:
            return default
        value = self.config[key]
        if type(value) is not int or not minimum <= value <= maximum:
            raise self._wrong(key, f"expected an integer from {minimum} to {maximum}")
        return value

    def optional_size(self, key: str, default: int, *, maximum: int = MAX_SIZE) -> int:
        """Like `size`, but null also means `default` (where transformers derives the value from others)."""
        return self.size(key, default, maximum=maximum) if self.has(key) else default

    def flag(self, key: str, default: bool) -> bool:
        """True or false; null and missing mean `default`."""
        if not self.has(key):
            return default
        value = self.config[key]
        if not isinstance(value, bool):
            raise self._wrong(key, "expected true or false")
        return value

    def number(self, key: str, default: float) -> float:
        """A number from 0 to 1; null and missing mean `default`."""
        if not self.has(key):
            return default
        value = self.config[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise self._wrong(key, "expected a number from 0 to 1")
        return float(value)

    def text(self, key: str, default: str) -> str:
        """A string; null and missing mean `default`."""
        if not self.has(key):
            return default
        value = self.config[key]
        if not isinstance(value, str):
            raise self._wrong(key, "expected a string")
        return value

    def items(self, key: str) -> list[Any]:
        """A list with one entry per layer; empty when the key is missing or null."""
        if not self.has(key):
            return []
        value = self.config[key]
        if not isinstance(value, list):
            raise self._wrong(key, "expected a list")
        return value

    def names_no_head(self) -> bool:
        """Whether `architectures` names a class without a head: the model gives hidden states."""
        named = str(next(iter(self.items("architectures")), ""))
        return named.endswith("Model") and not named.endswith("LMHeadModel")

    def names_classifier(self) -> bool:
        """Whether `architectures` names a class that scores whole rows."""
        return str(next(iter(self.items("architectures")), "")).endswith("ForSequenceClassification")

    def labels(self) -> int:
        """How many scores a row gets: `num_labels`, or as many as `id2label` names; two by default."""
        return self.size("num_labels", len(self.part("id2label").config) or 2)

    def without(self, key: str) -> Fields:
        """The same fields without one of them."""
        return self._replace(config={name: value for name, value in self.config.items() if name != key})

    def replaced(self, other: str, key: str) -> Fields:
        """The same fields with what stands under `other`, another name of `key`, under that."""
        used = self.key_of(key, other)
        return self if used == key else self._replace(config={**self.config, key: self.config[used]})

    def one_for_all(self, *keys: str) -> Fields:
        """The same fields, with a list of equal per-layer values under one of `keys` replaced by that value."""
        changed = {}
        for key in keys:
            value = self.config.get(key)
            if isinstance(value, list) and value:
                if any(type(one) is not int or one != value[0] for one in value):
                    raise self.unsupported(key, "layers that differ from each other")
                changed[key] = value[0]
        return self._replace(config={**self.config, **changed})

    def part(self, key: str) -> Fields:
        """The object under `key`; an empty one when the key is missing or null."""
        value = self.config.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self._wrong(key, "expected an object")
        return Fields(value, self.origin, f"{self.prefix}{key}.")

    def text_tower(self) -> Fields:
        """The `text_config` of a multimodal wrapper; ties embeddings as the wrapper does unless it sets that itself."""
        inner = self.part("text_config")
        if self.has("tie_word_embeddings") and not inner.has("tie_word_embeddings"):
            merged = {**inner.config, "tie_word_embeddings": self.config["tie_word_embeddings"]}
            return Fields(merged, self.origin, inner.prefix)
        return inner
