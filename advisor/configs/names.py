"""What the names of a Python text stand for while it is read, with a journal by which a branch is taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.configs.literals import Computed

_ABSENT = object()


class Names(dict[str, Any]):
    """Names with their values. Each change is in the journal, so that taking it back costs as much as it did."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        """Begin with these."""
        super().__init__(start)
        self._journal: list[tuple[str, Any]] = []

    def __setitem__(self, name: str, value: Any) -> None:
        """Give a name a value."""
        self._journal.append((name, self.get(name, _ABSENT)))
        super().__setitem__(name, value)

    def mark(self) -> int:
        """A place in the journal."""
        return len(self._journal)

    def back_to(self, mark: int) -> dict[str, Any]:
        """Take back what came after a place, and say what it was."""
        taken = {name: self[name] for name, _ in self._journal[mark:] if name in self}
        for name, old in reversed(self._journal[mark:]):
            if old is _ABSENT:
                self.pop(name, None)
            else:
                super().__setitem__(name, old)
        return taken

    def merge(self, other: Mapping[str, Any], mark: int) -> None:
        """Forget names that one branch, which made `other` of them, and the one after a place left with two values."""
        before = dict(reversed(self._journal[mark:]))  # the first entry of a name is what both started from
        for name in (*other, *before):
            started = before.get(name, self.get(name, _ABSENT))
            if name not in self or self[name] != other.get(name, started):
                self[name] = Computed(name)
