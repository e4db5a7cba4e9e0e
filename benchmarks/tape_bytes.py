"""Bytes that one function of the tape makes, keeps and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from advisor.tape.engine import run_backward
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

SCALAR_BYTES = 8
"""Numbers of their own are left out on both sides: PyTorch's code makes a few that nobody needs to mirror."""


class Measured(NamedTuple):
    """Bytes beyond what lived before: at the peak of forward, left after it; the same of backward."""

    forward_peak: int
    kept: int
    backward_peak: int
    left: int


def mirrored(function: Callable[..., Any], inputs: Sequence[Tensor | None], t: Tape) -> Measured:
    """The same on the tape that the inputs were made on; on leaving autocast its cache goes.

    `function` returns a tensor or a tuple of them, each of which gets a gradient that lives throughout.
    """
    begun, autocast = len(t.events), t.autocast
    out = function(t, *inputs)
    t.autocast = ""
    t.autocast_cache.clear()
    ran = len(t.events)
    outs = out if isinstance(out, tuple) else (out,)
    gradients = tuple(t.empty(one.shape, one.dtype) for one in outs)
    if len(outs) > 1:
        out = t.op(outs, (), "float32", lambda g: gradients)
    ready = len(t.events)
    run_backward(t, out, gradients[0] if len(outs) == 1 else t.empty((), "float32"))
    if t.offloader is not None:
        t.offloader.finish_backward()
    done = len(t.events)
    sizes = {slot: size for size, slot in t.slots.items()}
    moves = [-sizes[event >> 3] if event % 2 else sizes[event >> 3] for event in t.events[:done]]
    t.autocast = autocast
    return measured(moves, (begun, ran, ready, done))


def measured(moves: Sequence[int], marks: tuple[int, int, int, int]) -> Measured:
    """From bytes that come and go, and where forward begins and ends, where backward begins and ends."""
    begun, ran, ready, done = marks
    heights, height = [0], 0
    for move in moves:
        height += move if abs(move) > SCALAR_BYTES else 0
        heights.append(height)
    return Measured(
        max(heights[begun : ran + 1]) - heights[begun],
        heights[ran] - heights[begun],
        max(heights[ready : done + 1]) - heights[ready],
        heights[done] - heights[ready],
    )
