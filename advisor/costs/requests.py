"""A recorded program as requests to the caching allocator: what is allocated and released, in order.

A release frees the youngest allocation of its size and category: within a layer that may be another one of the same
size than the real one. Ignored: the order in which layers of several kinds alternate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from advisor.costs import compiled
from advisor.decoders.recording import LEAVING_AUTOCAST
from advisor.tape.graph import GRADIENT
from advisor.tape.program import Part, Program


class Requests(NamedTuple):
    """2 * register to allocate a slot's size, 2 * register + 1 to release it, with the slot of each."""

    codes: Any
    slots: Any


NOTHING = Requests(compiled.array([]), compiled.array([]))


class MicroStep(NamedTuple):
    """A program as requests, and what is alive after it; an evaluation has no backward."""

    program: Program
    forward: Requests
    backward: Requests
    registers: int
    gradients: Any
    carried: Any  # all else: what the loss and the model's outputs hold


class _Writer:
    """Numbers the allocations of a micro-step, and finds the one that a release means."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.slots: list[int] = []
        self.live: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self.last = -1

    def play(self, events: Sequence[int]) -> None:
        """Write a run of events; bytes that move to another category ask for nothing."""
        index = 0
        while index < len(events):
            event = events[index]
            slot, category = event >> 3, event >> 1 & 3
            following = events[index + 1] if index + 1 < len(events) else event
            if not event & 1:
                self.last += 1
                self.live[slot, category].append(self.last)
                self._write(2 * self.last, slot)
            elif not following & 1 and following >> 3 == slot and following >> 1 & 3 != category:
                if self.live[slot, category]:
                    self.live[slot, following >> 1 & 3].append(self.live[slot, category].pop())
                index += 1
            else:
                self.release(slot, category)
            index += 1

    def release(self, slot: int, category: int) -> None:
        """Free the youngest of these; the tape also releases what was there before it began."""
        if self.live[slot, category]:
            self._write(2 * self.live[slot, category].pop() + 1, slot)

    def _write(self, code: int, slot: int) -> None:
        self.codes.append(code)
        self.slots.append(slot)

    def cut(self) -> Requests:
        """What was written since the last cut."""
        found = Requests(compiled.array(self.codes), compiled.array(self.slots))
        self.codes, self.slots = [], []
        return found


def micro_step(program: Program) -> MicroStep:
    """The requests of a program; gradients that stood before it began are not its own."""
    writer = _Writer()
    forward: Requests | None = None
    for part in program.parts:
        if forward is None and part.phase == "backward":
            forward = writer.cut()
        for _ in range(part.copies):
            writer.play(program.events[part.start : part.end])
        if part.place == LEAVING_AUTOCAST:
            _drop_casts(writer, program.parts)
    rest = writer.cut()
    forward, backward = (rest, NOTHING) if forward is None else (forward, rest)
    gradients: list[int] = []
    carried: list[int] = []
    for (_, category), registers in writer.live.items():
        (gradients if category == GRADIENT else carried).extend(registers)
    left = (compiled.array(sorted(registers)) for registers in (gradients, carried))
    return MicroStep(program, forward, backward, writer.last + 1, *left)


def _drop_casts(writer: _Writer, parts: Iterable[Part]) -> None:
    """Leaving autocast frees the cached casts of the layers that were not run, too."""
    for part in parts:
        for slot, category, net in part.dropped:
            for _ in range(-net * (part.copies - 1)):
                writer.release(slot, category)
