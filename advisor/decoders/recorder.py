"""The record of a step, cut into parts: embedding, blocks of a tower, one layer of each kind, head; both ways."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from advisor.tape.graph import RawKernel, Tensor
from advisor.tape.program import Part, net_of
from advisor.tape.tape import Tape

P = ParamSpec("P")
R = TypeVar("R")

EMBEDDING, TOWER, JOINED, HEAD, LEAVING_AUTOCAST = -1_000_000, -900_000, -1, 1_000_000, 1_000_001
"""Places of parts, in the order of the forward: layers have numbers from 0, blocks of a vision tower from TOWER."""


class Recorder:
    """Cuts the tape's record into parts."""

    def __init__(self, t: Tape, copies: dict[int, int]) -> None:
        self.t = t
        self.copies = copies
        self.parts: list[tuple[Part, list[RawKernel]]] = []
        self.phase = "forward"
        t.on_segment = self.enter

    def enter(self, place: int) -> None:
        """Begin the part of layer `place` in the current phase."""
        self.close()
        t = self.t
        t.segment = place
        t.kernels = []
        self.parts.append((Part(self.phase, place, self.copies.get(place, 1), len(t.events)), t.kernels))

    def close(self) -> None:
        """End the part that is open."""
        if self.parts:
            part, t = self.parts[-1][0], self.t
            part.end = len(t.events)
            part.recomputed += t.recomputed
            part.hooked += t.hooked
            part.recomputed_flop += t.recomputed_flop
            part.hosted_bytes += t.hosted_bytes
            t.recomputed = t.hooked = t.recomputed_flop = t.hosted_bytes = 0

    def finish(self) -> None:
        """End the record and let go of the tape: each would keep the other alive."""
        self.close()
        del self.t.on_segment

    def enter_block(self, block: int) -> None:
        """Begin the part of a vision tower's block, or, with -1, that in which its tokens join the text."""
        self.enter(JOINED if block < 0 else TOWER + block)


def leave_model(t: Tape, recorder: Recorder, collected: list[list[Tensor]]) -> None:
    """The end of the model's outputs, with what was `collected` of each layer, and of autocast's cached casts.

    What each layer loses by that is noted.
    """
    recorder.enter(LEAVING_AUTOCAST)
    places = {part.place: part for part, _ in recorder.parts}
    lost: dict[int, list[int]] = {}
    for place, tensors in enumerate(collected):
        start = len(t.events)
        tensors.clear()
        lost.setdefault(place, []).extend(t.events[start:])
    while t.autocast_cache:
        start = len(t.events)
        _, entry = t.autocast_cache.popitem()
        place = entry.segment
        del entry
        lost.setdefault(place, []).extend(t.events[start:])
    for place, events in lost.items():
        places[place].dropped = net_of(events)
    t.autocast = ""


def leaving_garbage(record: Callable[P, R]) -> Callable[P, R]:
    """`record` without the search for cyclic garbage, which takes half as long again; it is left for later."""

    def recorded(*args: P.args, **kwargs: P.kwargs) -> R:
        collecting = gc.isenabled()
        gc.disable()
        try:
            return record(*args, **kwargs)
        finally:
            if collecting:
                gc.enable()

    return recorded
