"""Which columns of a row training reads, and the text or the turns that they hold.

The order is TRL's (trl 1.16, SFTTrainer.tokenize_fn and trl/data_utils.py): conversations with from and value are
converted first; then prompt and completion; then messages; then text. Alpaca's and other trainers' forms come after.
Everything else in a row (id, url, source ...) is not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from advisor.answer import DataForm
from advisor.dataset.rows import BadRow, shown
from advisor.errors import BadValue, InputError

Row = Mapping[str, object]

PREFERENCE = frozenset({"chosen", "rejected"})
CHATS = ("messages", "conversations")
READ = ("text", "prompt", "completion", *CHATS, "instruction", "input", "output", "tools")
COLUMNS = (*READ, *sorted(PREFERENCE))
"""Every name that recognition asks for; those of READ are what training reads."""

RECOGNIZED = "text; prompt and completion; messages; conversations; instruction and output, with or without input"
_SHAREGPT_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


class Turn(NamedTuple):
    """One message of a chat."""

    role: str
    content: str


class Example(NamedTuple):
    """What training reads of one row: a text, or the turns of a chat with the tools that it may call."""

    text: str
    turns: tuple[Turn, ...] = ()
    tools: object = None


class Form(NamedTuple):
    """How the rows of a file are read: the columns by their names in the file."""

    name: DataForm
    columns: tuple[str, ...]
    read: Callable[[Row], Example]


def recognized(row: Row, renamed: Mapping[str, str], path: str) -> Form:
    """The form of a file's rows, by one of them. `renamed` gives the file's name for some of the names known here.

    Raises InputError for preference data and for columns that are not recognized.
    """
    here = {name: renamed.get(name, name) for name in COLUMNS}
    has = {name for name, column in here.items() if column in row}
    if missing := [f"{name}={column}" for name, column in renamed.items() if column not in row]:
        raise BadValue("--data-columns", ",".join(missing), f"no such column in {path!r}; {_seen(row)}")
    if has >= PREFERENCE:
        raise InputError(
            f"--data {path!r} holds preferences (chosen and rejected), and only supervised fine-tuning is estimated: "
            "give a file with the chosen answers alone"
        )
    for chat in CHATS[::-1]:
        form: DataForm = "messages" if chat == "messages" else "sharegpt"
        if chat in has and _is_chat(row[here[chat]], "from", "value"):
            return Form(form, (here[chat],), _chat_reader(here[chat], here["tools"], "from", "value"))
    if {"prompt", "completion"} <= has:
        prompt, completion = here["prompt"], here["completion"]
        return Form("prompt_completion", (prompt, completion), _completion_reader(prompt, completion, here["tools"]))
    for chat in CHATS:
        if chat in has and _is_chat(row[here[chat]], "role"):
            return Form("messages", (here[chat],), _chat_reader(here[chat], here["tools"], "role", "content"))
    if "text" in has:
        return Form("text", (here["text"],), lambda row: Example(_text(row, here["text"])))
    if {"instruction", "output"} <= has:
        columns = tuple(here[name] for name in ("instruction", "input", "output") if name in has)
        return Form("alpaca", columns, _alpaca_reader(columns))
    raise InputError(
        f"--data {path!r}: {_seen(row)}; recognized are {RECOGNIZED}; --data-columns text=NAME names another column"
    )


def _seen(row: Row) -> str:
    names = [shown(name, 40) or repr(name) for name in row]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"its columns are {', '.join(names[:8]) or 'none'}{more}"


def _is_chat(value: object, *keys: str) -> bool:
    """Whether `value` is a list whose first item has these keys, as TRL asks."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and all(key in first for key in keys)


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise BadRow(f"{column} is {_kind(value)}, not text")
    return value


def _kind(value: object) -> str:
    kinds = {type(None): "missing or null", list: "a list", dict: "an object", bool: "a boolean"}
    return kinds.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def _turns(value: object, column: str, role: str, content: str) -> tuple[Turn, ...]:
    """The turns of a list of messages; an image or a sound among them is not text."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{column} is {_kind(value) if value else 'empty'}, not a list of messages")
    turns = []
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get(role), str):
            raise BadRow(f"a message in {column} has no {role}")
        name, said, calls = message[role], message.get(content), message.get("tool_calls")
        text = _said(said, column) if said is not None else ""
        if said is None and not calls:
            raise BadRow(f"a message in {column} has no {content}")
        text += json.dumps(calls, default=str) if calls else ""
        turns.append(Turn(_SHAREGPT_ROLES.get(name) or name, text))
    return tuple(turns)


def _said(content: object, column: str) -> str:
    """A message's content: text, or a list of parts that are all text."""
    if isinstance(content, str):
        return content
    parts: Iterable[object] = content if isinstance(content, list) else (content,)
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    good = [text for text in texts if isinstance(text, str)]
    if len(good) < len(texts):
        raise BadRow(f"a message in {column} holds something other than text")
    return "".join(good)


def _chat_reader(column: str, tools: str, role: str, content: str) -> Callable[[Row], Example]:
    return lambda row: Example("", _turns(row.get(column), column, role, content), row.get(tools))


def _completion_reader(prompt: str, completion: str, tools: str) -> Callable[[Row], Example]:
    def read(row: Row) -> Example:
        if isinstance(row.get(prompt), list):
            both = ((row.get(column), column) for column in (prompt, completion))
            turns = tuple(turn for value, column in both for turn in _turns(value, column, "role", "content"))
            return Example("", turns, row.get(tools))
        return Example(_text(row, prompt) + _text(row, completion))

    return read


def _alpaca_reader(columns: tuple[str, ...]) -> Callable[[Row], Example]:
    def read(row: Row) -> Example:
        *asked, answer = columns
        parts = [row.get(column) or "" if place else _text(row, column) for place, column in enumerate(asked)]
        if not all(isinstance(part, str) for part in parts):
            raise BadRow(f"{asked[1]} is {_kind(parts[1])}, not text")
        user = "\n".join(part for part in parts if isinstance(part, str) and part)
        return Example("", (Turn("user", user), Turn("assistant", _text(row, answer))))

    return read
