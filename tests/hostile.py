"""Documents as a stranger, a broken disk or an attacker leaves them: seeded mutations of good ones."""

from __future__ import annotations

import copy
import random
from typing import Any

from advisor.errors import AdvisorError

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**400, -(10**400), 0.5, -0.0, 1e-320, 1e308, float("nan"),
    float("inf"), "", "8", "nan", "llama", "\x1b[2J\x07", "\ud800", "x" * 5000, "../../etc/passwd", "2026-13-45",
    [], [[]], [0], [None], [1e308] * 3, ["full_attention"], {}, {"a": {}}, {"": None},
)  # fmt: skip
"""What stands where something else was expected."""


def mutated(document: Any, draw: random.Random, keys: tuple[str, ...] = ()) -> Any:
    """A copy in which one to four places hold something else, are gone, or are new (`keys`)."""
    found = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        _mutate(found, draw, keys)
    return found


def _mutate(found: Any, draw: random.Random, keys: tuple[str, ...]) -> None:
    inner = list(found.values()) if isinstance(found, dict) else found
    deeper = [one for one in inner if isinstance(one, (dict, list)) and one]
    if deeper and draw.random() < 0.7:
        _mutate(draw.choice(deeper), draw, keys)
    elif isinstance(found, list):
        place = draw.randrange(len(found))
        found[place] = _other(found[place], draw)
    else:
        name = draw.choice([*found, *found, *keys, "zzz"])
        if name in found and draw.random() < 0.1:
            del found[name]
        else:
            found[name] = _other(found.get(name), draw)


def _other(value: Any, draw: random.Random) -> Any:
    """Mostly something near the value, so that what is looked at first does not hide the rest."""
    if draw.random() < 0.6:
        if isinstance(value, bool):
            return not value
        if isinstance(value, (int, float)) and abs(value) < 1e30:
            return type(value)(value * 10 ** draw.randint(-12, 12)) + draw.choice((0, 0, 1, -1))
        if isinstance(value, str):
            return draw.choice(("", value + "\x1b]0;x\x07", value * 100, value + "\u202e<b>&", value[:-1]))
    found = copy.deepcopy(draw.choice(VALUES))
    return [found] * draw.randint(0, 40) if draw.random() < 0.1 else found


def damaged(text: str, draw: random.Random) -> bytes:
    """The text's bytes, some of them cut off, repeated, or replaced."""
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(4):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = data[at : at + draw.randint(1, 200)]
            case 2:
                data[at:at] = draw.choice((b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 5000, b"9" * 5000, b"\n", b'"'))
            case _:
                data[at : at + draw.randint(1, 50)] = b""
    return bytes(data)


def check_line(error: AdvisorError, names: str) -> None:
    """A message is one printable line that names the file and does not flood the terminal."""
    assert str(error).isprintable()
    assert names in str(error)
    assert len(str(error)) < 700
