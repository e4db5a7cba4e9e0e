"""A loop in the model's code whose turns record the same: a few run, one of them stands for all that do not.

The first turns differ (they find no state, no gradient to add to) and so do the last (nobody reads what they hand on).
In between every turn leaves the same events and the same kernels, forward and backward: those of one are repeated.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.tape.graph import Buffer, Tensor
from advisor.tape.layout import alias
from advisor.tape.tape import Tape

TURNS = 5
"""How many turns run at most."""
STANDS = 2
"""The one that stands for those that do not, counted from 0."""


class _Block:
    """What is recorded between two marks, `times` times more."""

    __slots__ = ("events", "kernels", "t", "times")

    def __init__(self, t: Tape, times: int) -> None:
        self.t, self.times = t, times
        self.events = self.kernels = 0

    def begin(self) -> None:
        """From here on."""
        self.events, self.kernels = len(self.t.events), len(self.t.kernels)

    def end(self) -> None:
        """Repeat what was recorded since."""
        self.t.events += self.t.events[self.events :] * self.times
        self.t.kernels += self.t.kernels[self.kernels :] * self.times


class _Others(Buffer):
    """What the turns that do not run have listed: as many buffers, which go together."""

    __slots__ = ("times",)
    times: int

    def __del__(self) -> None:
        self.events += [self.code + 1] * self.times


class Listed:
    """What the turns of a loop append to a list, one tensor each, all of one size."""

    __slots__ = ("others", "tensors")

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []  # of the turns that ran
        self.others: Buffer | None = None


def looped(
    t: Tape, times: int, carried: Tensor, turn: Callable[[Tensor], Tensor], listed: Listed | None = None
) -> Tensor:
    """What `turn` makes of `carried`, `times` times over; `listed` is what each turn appends to, if any.

    What a turn saves for backward stays on the card: with an offloader, which counts what it moves, every turn runs.
    """
    left_out = times - TURNS if times > TURNS and t.offloader is None else 0
    there, back = _Block(t, left_out), _Block(t, left_out)
    for index in range(times - left_out):
        if left_out and index == STANDS:
            there.begin()
            carried = _marked(t, carried, back.end)
        elif left_out and index == STANDS + 1:
            there.end()
            if listed is not None:
                listed.others = _others(listed.tensors[STANDS], left_out, t)
            carried = _marked(t, carried, back.begin)
        carried = turn(carried)
    return carried


def _others(like: Tensor, times: int, t: Tape) -> Buffer:
    assert like.buffer is not None
    found = _Others.standing(t, like.buffer.code)
    found.times = times
    return found


def _marked(t: Tape, x: Tensor, reached: Callable[[], None]) -> Tensor:
    """x; `reached` is called when the backward of all that came of it has run."""

    def backward(g: Tensor) -> tuple[Tensor]:
        reached()
        return (g,)

    return alias(t, (x,), backward)
