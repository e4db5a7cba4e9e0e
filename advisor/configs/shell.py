"""Shell scripts: the command that trains, and its flags. Nothing is executed.

Variables stand for what the text above gives them.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

from advisor.configs.literals import Computed
from advisor.configs.tree import Tree
from advisor.errors import BadConfig

_COMMANDS = (
    ("swift", "sft"),
    ("swift", "pt"),
    ("swift", "rlhf"),
    ("megatron", "sft"),
    ("llamafactory-cli", "train"),
    ("trl", "sft"),
    ("trl", "dpo"),
)
_SCRIPTS = ("swift/cli/sft.py", "swift/cli/pt.py")
"""What `swift sft` and `swift pt` run, which other launchers name by its path."""
_VARIABLE = re.compile(r"\$\{?(\w+)(?::?-([^}]*))?\}?")
_ASSIGNED = re.compile(r"(\w+)=(.*)", re.DOTALL)
_SUBSTITUTED = re.compile(r"\$\([^()]*\)|`[^`]*`")
"""What another command prints."""
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_ENDS = (";", "&&", "||", "|", "&", ">", ">>", "2>&1", "<")
_HINT = "give a script that runs `swift sft`, `llamafactory-cli train` or `trl sft`"


def shell_tree(text: str, name: str) -> Tree:
    """The flags of the first command that trains; `command` is 'swift sft', `environment` holds variables before it.

    Raises BadConfig for a script without one.
    """
    known: dict[str, str] = {}
    text = _SUBSTITUTED.sub("$UNKNOWN", text.replace("\r", ""))
    lines = text.replace("\\\n", " \x00").split("\n")
    number = 1
    for line in lines:
        words = _words(line.replace("\x00", " "), known)
        found = _command(words)
        if found is not None:
            start, command = found
            values, places = _flags(words[start:])
            if "deepspeed" in words[:start]:
                values["launcher"] = "deepspeed"
            values |= {"command": command, "environment": {**known, **_environment(words[:start])}}
            return Tree(values, dict.fromkeys(places, number))
        for word in words:
            match = _ASSIGNED.fullmatch(word)
            if match is not None:
                known[match[1]] = match[2]
        number += 1 + line.count("\x00")
    raise BadConfig(f"{name}: no command that trains; {_HINT}")


def _words(line: str, known: dict[str, str]) -> list[str]:
    """A line's words with its variables in place; of what has no end, none."""
    stripped = line.strip()
    if not stripped or stripped.startswith("#"):
        return []
    try:
        words = shlex.split(stripped, comments=True)
    except ValueError:
        return []
    words = [word for word in words if word != "export"]
    return [_VARIABLE.sub(lambda match: known.get(match[1], match[2] or match[0]), word)[:4096] for word in words]


def _command(words: list[str]) -> tuple[int, str] | None:
    """Where the flags of a training command start, and which it is; None for another line."""
    names = [os.path.basename(word) for word in words]
    for start in range(len(words)):
        for command in _COMMANDS:
            if tuple(names[start : start + len(command)]) == command:
                return start + len(command), " ".join(command)
    for i, word in enumerate(words):
        if word.endswith(_SCRIPTS):
            return i + 1, f"swift {names[i].removesuffix('.py')}"
    launched = any(name in ("python", "python3", "torchrun", "accelerate", "deepspeed") for name in names)
    script = next((i for i, name in enumerate(names) if name.endswith(".py")), None)
    if launched and script is not None and any(word.startswith("--model_name_or_path") for word in words[script:]):
        return script + 1, names[script]
    return None


def _environment(words: list[str]) -> dict[str, str]:
    return {match[1]: match[2] for word in words if (match := _ASSIGNED.fullmatch(word)) is not None}


def _flags(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The flags with their values: text, numbers, true and false, lists of several words."""
    values: dict[str, Any] = {}
    key = ""
    for word in words:
        if word in _ENDS:
            break
        if word.startswith("--") or (word.startswith("-") and not _NUMBER.fullmatch(word)):
            key, _, value = word.lstrip("-").partition("=")
            key = key.replace("-", "_")
            values[key] = _value(value) if value else True
        elif key:
            value = _value(word)
            before = values[key]
            values[key] = value if before is True else [*(before if isinstance(before, list) else [before]), value]
        elif "config" not in values:
            values["config"] = word
    return values, list(values)


def _value(word: str) -> Any:
    if "$" in word:
        return Computed(word)
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if _NUMBER.fullmatch(word) and len(word) < 40:
        return float(word) if any(one in word for one in ".eE") else int(word)
    return word
