"""JSON as pydantic writes it, byte for byte, without loading pydantic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from math import isfinite
from typing import Any

from advisor.interval import Interval

_WORDS = {True: "true", False: "false", None: "null"}


def json_text(value: Any, indent: int | None = None) -> str:
    """A value of texts, numbers, sequences, mappings and specs as JSON; infinities and NaN become null.

    `indent`: spaces of a level; None for one line without spaces.
    """
    return "".join(_parts(value, "" if indent is None else "\n", indent or 0, ": " if indent is not None else ":"))


def _parts(value: Any, line: str, indent: int, colon: str) -> Iterator[str]:
    kind = value.__class__
    if isinstance(value, str):
        yield encode_basestring(value)
    elif value is None or kind is bool:
        yield _WORDS[value]
    elif kind is int:
        yield str(value)
    elif kind is float:
        yield float_text(value)
    elif isinstance(value, (Mapping, Interval)) or hasattr(kind, "model_fields"):
        inner = line + " " * indent if line else ""
        named = value._asdict() if kind is Interval else value
        pairs = named.items() if isinstance(named, Mapping) else iter(named)
        start = "{"
        for name, one in pairs:
            yield f"{start}{inner}{encode_basestring(str(name))}{colon}"
            yield from _parts(one, inner, indent, colon)
            start = ","
        yield "{}" if start == "{" else f"{line}}}"
    else:
        inner = line + " " * indent if line else ""
        start = "["
        for one in value:
            yield f"{start}{inner}"
            yield from _parts(one, inner, indent, colon)
            start = ","
        yield "[]" if start == "[" else f"{line}]"


def float_text(value: float) -> str:
    """The shortest digits that mean this number, with an exponent below 1e-5 and from 1e16 on: 0.00001, 1e-6, 1e+16.

    Source: what pydantic-core 2.50 writes; Python has an exponent below 1e-4, of at least two digits.
    """
    if not isfinite(value):
        return "null"
    text = repr(value)
    if "e" not in text:
        return text
    digits, exponent = text.split("e")
    power = int(exponent)
    if -5 <= power < 0:
        return f"{Decimal(text):f}"
    return f"{digits}e{power:+d}" if power > 0 else f"{digits}e{power}"
