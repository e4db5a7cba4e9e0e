"""A recorded step as an engine goes through it: part by part, for the first and the last of equal layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.tape.graph import CATEGORY_NAMES, GRADIENT
from advisor.tape.program import Bytes, PartMemory, minus, plus, times

ZERO: Bytes = [0] * len(CATEGORY_NAMES)


class Turn(NamedTuple):
    """A part when it runs for one of the layers that it stands for.

    `earlier` ran before it in this phase, by place; None where nothing did. `later` runs after it.
    """

    part: PartMemory
    beside: Bytes  # what the layers that were not run add to the part's own bytes
    earlier: int | None
    later: int | None
    nth: int = 0  # of the layers that the part stands for, from 0 at the bottom


class Parts:
    """The parts of a step, and what each layer leaves behind.

    `reduced`: by place, what an engine changes of the gradients that a part leaves behind, in bytes. `holds`: the input
    that checkpointing keeps of a layer, and its gradient, stay to the end of the backward.
    """

    def __init__(self, segments: list[PartMemory], reduced: Mapping[int, int], holds: bool = False) -> None:
        self.forward = {s.place: s for s in segments if s.phase == "forward"}
        self.backward = {s.place: s for s in segments if s.phase == "backward"}
        self.layers = sorted(place for place in self.forward if EMBEDDING < place < HEAD)
        self.places = [EMBEDDING, *self.layers, HEAD]
        self._more = {place: self.forward[place].copies - 1 for place in self.layers}
        self._left = {place: minus(self.forward[place].after, self.forward[place].before) for place in self.layers}
        self._kept = {p: plus(self._left[p], self.forward[p].dropped) for p in self.layers}
        self.reduced = {place: _gradients(reduced.get(place, 0)) for place in self.places}
        if holds and self.layers:  # the gradient that a layer is handed is the tape's while the layer runs
            for place in self.layers:
                self.reduced[place] = plus(self.reduced[place], times(self._kept[place], 2))
            self.reduced[HEAD] = minus(self.reduced[HEAD], self._kept[self.layers[-1]])
        self._gone = dict(self._kept)  # a frozen tower runs no backward: what its blocks leave stays
        for place in self.layers:
            if (part := self.backward.get(place)) is not None:
                kept = minus(self._kept[place], minus(part.before, part.after))
                self._gone[place] = plus(kept, self.reduced[place])

    def forward_turns(self) -> Iterator[Turn]:
        """Each part of the forward: the first and the last of the layers that it stands for."""
        for index, place in enumerate(self.places):
            part = self.forward[place]
            base = plus(ZERO, *(times(self._left[p], self._more[p]) for p in self.layers if p < place))
            before = self.places[index - 1] if index else None
            after = self.places[index + 1] if place != HEAD else None
            more = self._more.get(place, 0)
            yield Turn(part, base, before, place if more else after)
            if more:
                yield Turn(part, plus(base, times(self._left[place], more)), place, after, more)

    def backward_turns(self) -> Iterator[Turn]:
        """Each part of the backward: the first, second and last of the layers that it stands for."""
        for index, place in reversed(list(enumerate(self.places))):
            part = self.backward.get(place)
            if part is None:
                continue
            base = plus(ZERO, *(times(self._kept[p], self._more[p]) for p in self.layers if p < place))
            base = plus(base, *(times(self._gone[p], self._more[p]) for p in self.layers if p > place))
            base = plus(base, *(self.reduced[p] for p in self.places if p > place))
            before = self.places[index + 1] if place != HEAD else None
            after = self.places[index - 1] if index else None
            more = self._more.get(place, 0)
            if not more:
                yield Turn(part, base, before, after)
                continue
            kept, gone = self._kept[place], self._gone[place]
            yield Turn(part, plus(base, times(kept, more)), before, place, more)
            yield Turn(part, plus(base, times(kept, more - 1), gone), place, place if more > 1 else after, more - 1)
            yield Turn(part, plus(base, times(gone, more)), place, after)


def _gradients(size: int) -> Bytes:
    found = list(ZERO)
    found[GRADIENT] = size
    return found
