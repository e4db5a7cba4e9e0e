"""What CUDA's caching allocator would reserve for a traced step: the trace, replayed. Needs no torch.

The process is followed from its start: weights, adapters and buffers are loaded, the first step runs, its optimizer
creates the states, and further steps follow until nothing new is reserved. Sizes and lifetimes are those of the
traced CPU step; CUDA's own kernels differ in a few tensors (see docs/notebook.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from advisor.costs.allocator import CachingAllocator, OutOfMemory, Replay
from calibrate.timeline import Timeline

STEPS = 3
LATE = ("optimizer_states",)
"""Static tensors that the first optimizer step makes."""


def replayed(timeline: Timeline, expandable_segments: bool = False, capacity_bytes: int = 0) -> Replay:
    """Peak allocated and reserved bytes of loading and three steps.

    Raises OutOfMemory when `capacity_bytes` (0: no limit) is too small.
    """
    return held(_moves(timeline), expandable_segments, capacity_bytes)


def held(moves: Iterable[tuple[int, int]], expandable_segments: bool = False, capacity_bytes: int = 0) -> Replay:
    """What the allocator holds over moves: (allocation's number, its bytes) or, when freed, (number, 0).

    Raises OutOfMemory when `capacity_bytes` (0: no limit) is too small.
    """
    allocator = CachingAllocator(expandable_segments, capacity_bytes)
    for key, size in moves:
        if size:
            allocator.allocate(key, size)
        else:
            allocator.release(key)
    return allocator.summary


def smallest_capacity_bytes(timeline: Timeline, expandable_segments: bool = False, accuracy: float = 0.002) -> int:
    """The least memory with which the steps run: before it fails, the allocator empties its cache and tries again.

    Between the allocated and the reserved peak; an upper bound within the relative `accuracy`.
    """
    whole = replayed(timeline, expandable_segments)
    return smallest_capacity_between(
        lambda capacity: replayed(timeline, expandable_segments, capacity),
        whole.peak_allocated_bytes,
        whole.peak_reserved_bytes,
        accuracy,
    )


def smallest_capacity_between(replay: Callable[[int], Replay], least: int, most: int, accuracy: float) -> int:
    """The least capacity from `least` to `most` bytes with which `replay` raises no OutOfMemory, by bisection."""
    low, high = least - 1, most
    while high - low > accuracy * high:
        middle = (low + high) // 2
        try:
            replay(middle)
        except OutOfMemory:
            low = middle
        else:
            high = middle
    return high


def _moves(timeline: Timeline) -> Iterator[tuple[int, int]]:
    """(allocation's number, its bytes) or, when freed, (number, 0), over loading and all steps."""
    found, start = timeline.allocations, timeline.marks[0][0]
    optimizer = next((at for at, phase in timeline.marks if phase == "optimizer"), len(timeline.moves))
    static = {move for move in timeline.moves[:start] if move >= 0}
    static -= {-move - 1 for move in timeline.moves[:start] if move < 0}
    late = sorted(index for index in static if found[index].category in LATE)
    for index in sorted(static.difference(late)):
        yield index, found[index].bytes
    for step in range(STEPS):
        shift = step * len(found)
        made: set[int] = set()
        for position in range(start, len(timeline.moves)):
            if position == optimizer and step == 0:
                yield from ((index, found[index].bytes) for index in late)
            move = timeline.moves[position]
            if move >= 0:
                made.add(move)
                yield move + shift, found[move].bytes
            elif -move - 1 in made:  # what was alive before the step is alive in the next one too
                made.remove(-move - 1)
                yield -move - 1 + shift, 0
        if step == 0 and optimizer == len(timeline.moves):
            yield from ((index, found[index].bytes) for index in late)
        yield from ((index + shift, 0) for index in sorted(made))
