"""Flags as texts: those of a page as values of knobs, those of an answer as a page's, and the command of both."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from advisor.errors import BadValue, UnknownName
from advisor.knobs import BY_NAME, KNOBS, Knob, read_value

SWITCHES = {"on": True, "off": False}
NOT_ASKED = ("data", "data_columns", "tokenizer", "skip_bad_lines")
"""Knobs about files of a machine, which a page has no access to."""
MOST_FLAGS = 100
_PLAIN = re.compile(r"[\w ,.:/+-]*")  # nothing that a shell reads otherwise


def values_of(flags: object) -> dict[str, str | bool]:
    """The values of knobs that a page's texts mean; '' leaves one open.

    Raises UnknownName for a knob that does not exist, BadValue for what is no text.
    """
    if not isinstance(flags, Mapping) or len(flags) > MOST_FLAGS:
        raise BadValue("flags", flags, "must be names of knobs and texts")
    found: dict[str, str | bool] = {}
    for name, value in flags.items():
        if name not in BY_NAME or name in NOT_ASKED:
            raise UnknownName("knob", str(name), [knob for knob in BY_NAME if knob not in NOT_ASKED])
        if not isinstance(value, str):
            raise BadValue(BY_NAME[name].flag, value, "must be text")
        if value.strip():
            found[name] = _switched(BY_NAME[name], value.strip()) if BY_NAME[name].kind == "bool" else value.strip()
    return found


def _switched(knob: Knob, text: str) -> bool:
    if text not in SWITCHES:
        raise BadValue(knob.flag, text, "must be on or off")
    return SWITCHES[text]


def texts_of(flags: Iterable[str]) -> dict[str, str]:
    """The flags of an answer, such as '--seq-len 512' and '--no-packing', as a page's texts by knob."""
    found: dict[str, str] = {}
    words = [word for flag in flags for word in (flag.split() if _PLAIN.fullmatch(flag) else shlex.split(flag))]
    for place, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name = word[2:].replace("-", "_")
        knob = BY_NAME.get(name) or BY_NAME.get(name.removeprefix("no_"))
        if knob is None or knob.name in NOT_ASKED:
            continue
        if knob.kind == "bool":
            found[knob.name] = "on" if knob.name == name else "off"
        else:
            found[knob.name] = _chosen(knob, words[place + 1])
    return found


def _chosen(knob: Knob, word: str) -> str:
    """Of a choice the word that a page's list has, whatever alias was written."""
    return str(read_value(knob.name, word)) if knob.kind == "choice" else word


def command_of(values: Mapping[str, str | bool]) -> str:
    """The command line that asks the same."""
    parts = ["advise"]
    for knob in KNOBS:
        value = values.get(knob.name)
        if isinstance(value, bool):
            parts.append(knob.flag if value else f"--no-{knob.flag[2:]}")
        elif value is not None:
            parts.append(f"{knob.flag} {shlex.quote(value)}")
    return " ".join(parts)
