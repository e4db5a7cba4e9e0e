"""Values of knobs, checked and in their own types."""

from __future__ import annotations

import re

from advisor.errors import BadValue, UnknownName
from advisor.knobs.aliases import STAND_INS
from advisor.knobs.table import BY_NAME, Knob, range_of
from advisor.libraries import stack_names

_MAX_NAMES = 64
_IN_PATTERNS = frozenset("*+?()[]{}|^$\\")


def read_value(name: str, value: object) -> object:
    """`value` of the knob `name`, checked and in its own type; text is parsed, so "16" is 16.

    Raises UnknownName for a knob or a choice that does not exist and BadValue for a value out of range.
    """
    if name not in BY_NAME:
        raise UnknownName("knob", name, BY_NAME)
    knob = BY_NAME[name]
    if knob.kind in ("int", "float"):
        return _read_number(knob, value)
    if knob.kind == "bool":
        if not isinstance(value, bool):
            raise BadValue(knob.flag, value, "must be True or False")
        return value
    if knob.kind == "names":
        return _read_names(knob, value)
    text = value if isinstance(value, str) else repr(value)
    if knob.kind == "choice":
        word = _spelled(text)
        chosen = word if word in knob.choices else knob.aliases.get(word)
        if chosen is None and word in STAND_INS.get(name, {}):
            chosen = STAND_INS[name][word][0]
        if chosen is None:
            known = "known: " + ", ".join(knob.choices)
            raise UnknownName(knob.name.replace("_", " "), text, (*knob.choices, *knob.aliases), known)
        return chosen
    if not text.strip() or not text.isprintable() or len(text) > 4096:
        raise BadValue(knob.flag, text, "must be one line of printable text")
    return _image_size(knob, text) if name == "image_size" else text


_SIDES = re.compile(r"([1-9]\d{0,4})(?:\s*[x*\u00d7]\s*([1-9]\d{0,4}))?")


def _image_size(knob: Knob, text: str) -> str:
    """'1024x768' of '1024 x 768' or '1024*768'; one number stands for both sides."""
    match = _SIDES.fullmatch(_spelled(text))
    if match is None:
        raise BadValue(knob.flag, text, "must be width x height in pixels, as 1024x768, each from 1 to 99,999")
    return f"{match[1]}x{match[2] or match[1]}"


def _spelled(text: str) -> str:
    return text.strip().lower().replace("-", "_")


def stand_in_text(name: str, value: object) -> str:
    """What is taken in the place of a word for a knob, as a sentence; '' where the word itself is."""
    taken, why = STAND_INS.get(name, {}).get(_spelled(value) if isinstance(value, str) else "", ("", ""))
    return f"{BY_NAME[name].flag} {value} is taken as {taken}: {why}." if taken else ""


_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_THOUSANDS = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([km])")


def _read_number(knob: Knob, value: object) -> int | float:
    allowed, whole = range_of(knob), knob.kind == "int"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadValue(knob.flag, value, allowed.text(whole))
    try:
        plain = _plain_digits(knob, value) if isinstance(value, str) else value
        number = int(plain) if whole and isinstance(plain, str) else float(plain)
        good = allowed.holds(number) and (not whole or number == int(number))
    except (ValueError, OverflowError):
        good = False
    if not good:
        raise BadValue(knob.flag, value, allowed.text(whole))
    return int(number) if whole else float(number)


def _plain_digits(knob: Knob, text: str) -> str | float:
    """The number as Python reads it: "10,000" without commas, "8k" times what the knob's k stands for."""
    word = text.strip().lower()
    if _GROUPED.fullmatch(word):
        return word.replace(",", "")
    match = _THOUSANDS.fullmatch(word) if knob.k else None
    return text if match is None else round(float(match[1]) * knob.k ** (1 + (match[2] == "m")), 3)


def _read_names(knob: Knob, value: object) -> tuple[str, ...]:
    parts = _split_names(knob, value.strip()) if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and 0 < len(parts) <= _MAX_NAMES:
        words = tuple(part.strip() for part in parts if isinstance(part, str))
        given = (
            knob.aliases.get(word.lower().replace("-", "_"), knob.aliases.get(word.lower(), word)) for word in words
        )
        names = tuple(dict.fromkeys(name for word in given for name in word.split()))
        if len(words) == len(parts) and all(words) and all(name.isprintable() for name in names):
            return _known_names(knob, names)
    raise BadValue(knob.flag, value, f"must be names separated by commas: {knob.help}")


def _split_names(knob: Knob, text: str) -> list[str]:
    """Names between commas or spaces; a regular expression is one text."""
    if knob.name == "target_modules" and not _IN_PATTERNS.isdisjoint(text):
        return [text]
    return re.split(r"\s*,\s*|\s+", text)


def _known_names(knob: Knob, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names as a recipe holds them, if the knob has choices or they are libraries with versions."""
    if knob.name == "stack":
        return stack_names(names)
    if not knob.choices:
        return names
    spelled = tuple(name.lower().replace("-", "_") for name in names)
    for name, word in zip(names, spelled, strict=True):
        if word not in knob.choices:
            known = "known: " + ", ".join(knob.choices)
            raise UnknownName(knob.name.removesuffix("s"), name, (*knob.choices, *knob.aliases), known)
    return tuple(choice for choice in knob.choices if choice in spelled)
