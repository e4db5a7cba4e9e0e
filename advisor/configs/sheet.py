"""A file while it is read: what each key became, and which nobody asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from copy import copy
from typing import Any

from advisor.configs.found import Found, Unread, Use
from advisor.configs.literals import Computed
from advisor.configs.tree import Tree
from advisor.errors import AdvisorError, BadConfig
from advisor.knobs import read_value
from advisor.recipes import flag
from advisor.specs import Trainer

DATA_ENDINGS = (".jsonl", ".json", ".csv", ".parquet", ".txt", ".gz")
"""Of files that `--data` reads."""


class Sheet:
    """The keys of one file. What a reader takes is noted; what it leaves is unread, unless it changes nothing."""

    def __init__(self, name: str, tree: Tree) -> None:
        """Read `tree`, which errors call `name`."""
        self.name, self.tree = name, tree
        self.knobs: dict[str, Any] = {}
        self._uses: list[Use] = []
        self._unread: list[Unread] = []
        self._other: list[Unread] = []
        self._taken: dict[str, None] = {}
        self._asked: set[str] = set()
        self.prefix = ""
        self._last_layers: list[int] = []

    def is_off(self, key: str) -> bool:
        """Whether the file leaves a key out or switches it off: also 0, and 1 for a number of ways to split."""
        value = self.get(key)
        return value is not True and value in (None, False, 0, 1, "", "none", [], {})

    def at(self, prefix: str) -> Sheet:
        """The same sheet for keys that all start with `prefix`: 'arguments.'."""
        part = copy(self)
        part.prefix = self.prefix + prefix
        return part

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, taken; `default` where the file has none or null. A dot reaches into a mapping."""
        value = self.peek(key)
        if value is None:
            return default
        if isinstance(value, Computed):
            if self.prefix + key not in self._taken:
                self.loses(key, "only the run knows it")
            return default
        self._taken[self.prefix + key] = None
        return value

    def peek(self, key: str) -> Any:
        """The value of a key, which stays for others to take; None where the file has none."""
        self._asked.add(self.prefix + key)
        value: Any = self.tree.values
        for part in (self.prefix + key).split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def word(self, key: str, default: str = "") -> str:
        """The value of a key as text; of one that is no plain value, which is unread then, `default`."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, (list, dict)):
            self.loses(key, "several values in place of one")
            return default
        return str(value)

    def has(self, *keys: str) -> bool:
        """Whether one of these keys is switched on, which takes them."""
        found = [bool(self.get(key)) for key in keys]
        return any(found)

    def sets(self, knob: str, value: Any, *keys: str) -> None:
        """The knob that keys set; without keys, what the tool does by itself. Raises BadConfig for a bad value."""
        try:
            read_value(knob, value)
        except AdvisorError as error:
            if not keys:
                raise
            raise BadConfig(f"{self.name}, {self._where(keys[0])}: {error}") from None
        self.knobs[knob] = value
        flags = flag(knob, tuple(value) if isinstance(value, list) else value)
        for key in keys or ("",):
            self._uses.append(
                Use(
                    key=self.prefix + key if key else "",
                    value=_shown(self.peek(key)) if key else "",
                    line=self._line(key),
                    flags=flags,
                )
            )

    def takes(self, knob: str, key: str, default: Any = None) -> None:
        """The knob that has a key's own value; `default` is the tool's, where the file has none."""
        value = self.get(key)
        if value is not None:
            self.sets(knob, value, key)
        elif default is not None:
            self.sets(knob, default)

    def takes_if_known(self, knob: str, key: str) -> None:
        """The same for a knob that changes neither memory nor time: a value that only the run knows is left."""
        if isinstance(self.peek(key), Computed):
            self._taken[self.prefix + key] = None
        else:
            self.takes(knob, key)

    def number(self, key: str, value: Any) -> float:
        """A number that a file has. Raises BadConfig for anything else."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise BadConfig(f"{self.name}, {self._where(key)}: {_shown(value)!r} is no number") from None
        if not 0 <= number < 1e12:
            raise BadConfig(f"{self.name}, {self._where(key)}: {_shown(value)} is out of range")
        return number

    def rows_of_a_step(self, accumulation: Any, key: str) -> None:
        """The batch of a step on one card, of its micro-batches; the cards multiply it when their number is known."""
        steps = 1 if accumulation is None else int(self.number(key, accumulation))
        self.sets("batch_size", int(self.knobs["micro_batch"]) * steps, *([key] if self.peek(key) is not None else []))

    def layers(self, key: str, numbers: Any) -> None:
        """The numbers of the layers that are trained: the last ones, if the last of them is the model's."""
        if not numbers:
            return
        try:
            wanted = sorted({int(one) for one in (numbers if isinstance(numbers, list) else [numbers])})
        except (TypeError, ValueError):
            self.loses(key, "no numbers of layers")
            return
        if wanted != list(range(wanted[0], wanted[-1] + 1)):
            self.loses(key, "some layers, which are not the last ones")
            return
        self.sets("trained_layers", len(wanted), key)
        self._last_layers.append(wanted[-1])

    def data(self, key: str) -> None:
        """The data set, which is read where it is one file that is here; else its rows are not known."""
        listed = self.get(key)
        first = listed[0] if isinstance(listed, list) and len(listed) == 1 else None
        path = first.get("path") if isinstance(first, Mapping) else None
        self._taken |= dict.fromkeys(one for one in self.tree.lines if one.startswith(f"{key}."))
        if isinstance(path, str) and os.path.isfile(path) and path.endswith(DATA_ENDINGS):
            self.sets("data", path, key)

    def loses(self, key: str, why: str, *settled_by: str) -> None:
        """A key that changes memory or time in a way that no knob says, unless one of `settled_by` is given."""
        self._taken[self.prefix + key] = None
        value, line = _shown(self.peek(key)), self._line(key)
        self._unread.append(Unread(key=self.prefix + key, value=value, line=line, why=why, settled_by=settled_by))

    def loses_those_on(self, known: Mapping[str, str]) -> None:
        """The keys of a table, each with why it matters, that the file switches on."""
        for key, why in known.items():
            if not self.is_off(key):
                self.loses(key, why)

    def refuses_those_on(self, known: Mapping[str, str]) -> None:
        """The keys of a table, each with why it is another kind of run, that the file switches on."""
        for key, why in known.items():
            if self.has(key):
                self.refuses(key, why)

    def refuses(self, key: str, why: str) -> None:
        """A key by which this is another kind of run."""
        self._taken[self.prefix + key] = None
        self._other.append(Unread(key=self.prefix + key, value=_shown(self.peek(key)), line=self._line(key), why=why))

    def _left(self, values: Mapping[str, Any], opened: Set[str], prefix: str = "") -> Iterator[str]:
        """Keys with a value that were not taken; mappings of which some keys are known are looked into."""
        for key, value in values.items():
            path = prefix + key
            if isinstance(value, Mapping) and path in opened:
                yield from self._left(value, opened, f"{path}.")
            elif path not in self._taken and value not in (None, "", [], {}):
                yield path

    def found(self, format: str, trainer: Trainer, idle: frozenset[str], **more: Any) -> Found:
        """The file as a question; keys that were not taken and are not `idle` are unread."""
        opened = {key.rsplit(".", 1)[0] for key in (*self._taken, *idle) if "." in key}
        left = list(self._left(self.tree.values, opened))
        unknown = [key for key in left if key not in idle and key.split(".")[0] not in idle]
        for key in unknown:
            self.loses(key, f"not known here, so that it may change memory or time{self._near(key, idle)}")
        return Found(
            format=format,
            trainer=trainer,
            knobs={**self.knobs, "trainer": trainer},
            uses=tuple(self._uses),
            unread=tuple(self._unread),
            idle=tuple(key for key in left if key not in unknown),
            other=tuple(self._other),
            last_layer=self._last_layers[-1] if self._last_layers else None,
            **more,
        )

    def _near(self, key: str, idle: frozenset[str]) -> str:
        """The key that a misspelled one may stand for, of those that the file does not have."""
        from difflib import get_close_matches  # only a mistake needs it

        near = get_close_matches(key, sorted((self._asked | idle) - self.tree.lines.keys()), n=1, cutoff=0.85)
        return f"; did you mean {near[0]}?" if near else ""

    def _where(self, key: str) -> str:
        line = self._line(key)
        return f"line {line}, {self.prefix}{key}" if line else self.prefix + key

    def _line(self, key: str) -> int:
        return self.tree.lines.get(self.prefix + key, 0)


def _shown(value: Any) -> str:
    """A value on one short line, as YAML writes it."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if isinstance(value, bool) or value is None else str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 60 else text[:57] + "..."
