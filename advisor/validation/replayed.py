"""Reserved memory of a step whose shapes never change: the tape's allocations, replayed through the allocator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from advisor.costs.allocator import Replay, replay
from advisor.costs.memory import StepMemory
from advisor.decoders.stack import Stack
from advisor.decoders.step import step_program
from advisor.specs import ModelSpec, Recipe
from advisor.tape.program import Program

PIECE_BYTES = 64 * 2**20
"""What is held for the whole run is laid out in pieces of this size: it is never released."""
STEPS = 2


class _Keys:
    """Numbers the allocations, and finds the one that a release means: the last of its size."""

    def __init__(self) -> None:
        self.last = 0
        self.live: defaultdict[int, list[int]] = defaultdict(list)

    def take(self) -> int:
        self.last += 1
        return self.last


def _played(events: list[int], sizes: list[int], keys: _Keys) -> Iterator[tuple[int, int]]:
    """A part of events as the allocator's requests; moving bytes to another category asks for nothing."""
    moved = False
    for index, event in enumerate(events):
        slot = event >> 3
        if moved or not sizes[slot]:
            moved = False
        elif event & 1:
            following = events[index + 1] if index + 1 < len(events) else event
            moved = not following & 1 and following >> 3 == slot and following >> 1 & 3 != event >> 1 & 3
            if not moved and keys.live[slot]:
                yield keys.live[slot].pop(), 0
        else:
            keys.live[slot].append(keys.take())
            yield keys.last, sizes[slot]


def _step(program: Program, sizes: list[int], keys: _Keys) -> Iterator[tuple[int, int]]:
    """One step of all layers: a layer that was run once for n is played n times. At its end all is released."""
    parts = program.parts
    yield from _played(program.events[: parts[0].start], sizes, keys)
    for part in parts:
        for _ in range(part.copies):
            yield from _played(program.events[part.start : part.end], sizes, keys)
    for live in keys.live.values():
        while live:
            yield live.pop(), 0


def replayed(
    step: StepMemory, aside_bytes: int, m: ModelSpec, recipe: Recipe, batch: int, seq_len: int, stack: Stack
) -> Replay:
    """What a card's allocator reserves for some steps of this shape, with `aside_bytes` beside the tape's tensors.

    Ignores: the optimizer's temporaries, and that a step's last tensors live on into the next one's forward.
    """
    program = step_program(m, recipe, batch, seq_len, "cuda", stack)
    sizes, keys = program.slot_bytes(batch, seq_len, recipe.rank), _Keys()

    def requests() -> Iterator[tuple[int, int]]:
        for size in (*step.static_blocks.values(), aside_bytes):
            for begin in range(0, size, PIECE_BYTES):
                yield keys.take(), min(PIECE_BYTES, size - begin)
        for _ in range(STEPS):
            yield from _step(program, sizes, keys)

    return replay(requests())
