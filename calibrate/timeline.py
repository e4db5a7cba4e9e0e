"""What was allocated and freed during one step, in order, and the peaks derived from that. Needs no torch.

A step is recorded as a list of allocations and a list of moves: `+i` for "allocation i was made", `-i - 1` for
"allocation i was freed". Peaks, and what was alive at a peak, are computed afterwards.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from advisor.terms import TermName
from calibrate.measurement import CensusRow, Event, PhasePeak

BUCKETS = "buckets"
"""Category of what the engine of several cards holds from step to step to exchange gradients."""
_LAYER = re.compile(r"(?<=\.)\d+(?=\.|$)")
STATIC: Mapping[str, TermName] = {
    "base_weights": TermName.BASE_WEIGHTS,
    "quantization": TermName.QUANTIZATION_CONSTANTS,
    "adapters": TermName.ADAPTERS,
    "buffers": TermName.BUFFERS,
    "inputs": TermName.BATCH,
    "optimizer_states": TermName.OPTIMIZER_STATES,
}
"""Categories of a trace that stay allocated for the whole run, and the formula's names for them."""


@dataclass(slots=True)
class Allocation:
    """One storage: how many bytes, and who made it."""

    bytes: int
    category: str
    op: str
    module: str
    shape: tuple[int, ...]
    dtype: str
    exact_bytes: int = 0  # before rounding up to a block


@dataclass(slots=True)
class Timeline:
    """The moves of one step, cut into named phases."""

    allocations: list[Allocation] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    marks: list[tuple[int, str]] = field(default_factory=list)
    accumulated: list[tuple[int, int]] = field(default_factory=list)
    """(moves made so far, allocation) where a gradient was complete: accumulation would add it to an older one."""

    def mark(self, phase: str) -> None:
        """Begin a phase here."""
        self.marks.append((len(self.moves), phase))

    def phase_peaks(self) -> tuple[PhasePeak, ...]:
        """For every phase, the most bytes alive during it and the allocation that caused them."""
        peaks = []
        ends = [start for start, _ in self.marks[1:]] + [len(self.moves)]
        live = self.live_bytes(self.marks[0][0])
        for (start, phase), end in zip(self.marks, ends, strict=True):
            begin_bytes = peak_bytes = live
            peak_move = start
            for position in range(start, end):
                live += self._delta(position)
                if live > peak_bytes:
                    peak_bytes, peak_move = live, position + 1
            op, module = ("", "") if peak_move == start else self._who(peak_move - 1)
            peaks.append(
                PhasePeak(
                    phase=phase,
                    begin_bytes=begin_bytes,
                    peak_bytes=peak_bytes,
                    end_bytes=live,
                    op=op,
                    module=module,
                    move=peak_move,
                )
            )
        return tuple(peaks)

    def live_bytes(self, moves: int) -> int:
        """Bytes alive after the first `moves` moves."""
        return sum(self._delta(position) for position in range(moves))

    def census(self, moves: int) -> tuple[CensusRow, ...]:
        """What is alive after the first `moves` moves, largest first, equal tensors of many layers together."""
        alive: set[int] = set()
        for move in self.moves[:moves]:
            if move >= 0:
                alive.add(move)
            else:
                alive.discard(-move - 1)
        groups: dict[tuple[str, str, str, tuple[int, ...], str], list[Allocation]] = {}
        for index in sorted(alive):
            a = self.allocations[index]
            key = (a.category, a.op, _LAYER.sub("*", a.module), a.shape, a.dtype)
            groups.setdefault(key, []).append(a)
        rows = [
            CensusRow(
                category=category,
                op=op,
                module=module,
                layers=_layer_span(members),
                shape=shape,
                dtype=dtype,
                count=len(members),
                bytes=sum(a.bytes for a in members),
            )
            for (category, op, module, shape, dtype), members in groups.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.bytes, row.category, row.module, row.op)))

    def static_bytes(self) -> dict[str, int]:
        """Bytes alive before the step begins, by category."""
        totals = dict.fromkeys((*STATIC, BUCKETS, "gradients"), 0)
        for move in self.moves[: self.marks[0][0]]:
            allocation = self.allocations[move if move >= 0 else -move - 1]
            totals[allocation.category] += allocation.bytes if move >= 0 else -allocation.bytes
        return totals

    def events(self) -> Iterator[Event]:
        """Every move of the step, from the first phase on."""
        bounds = [*self.marks, (len(self.moves), "")]
        for (start, phase), (end, _) in itertools.pairwise(bounds):
            for position in range(start, end):
                move = self.moves[position]
                a = self.allocations[move if move >= 0 else -move - 1]
                yield Event(
                    phase=phase,
                    op=a.op,
                    module=a.module,
                    shape=a.shape,
                    dtype=a.dtype,
                    bytes=a.bytes if move >= 0 else -a.bytes,
                )

    def _delta(self, position: int) -> int:
        move = self.moves[position]
        return self.allocations[move].bytes if move >= 0 else -self.allocations[-move - 1].bytes

    def _who(self, position: int) -> tuple[str, str]:
        allocation = self.allocations[self.moves[position]]
        return allocation.op, allocation.module


def _layer_span(members: list[Allocation]) -> str:
    """The layers that `members` belong to: '0-31', '31', '0,2,4', or '' when not in a layer."""
    found = sorted({int(m[0]) for a in members if (m := _LAYER.search(a.module))})
    if not found:
        return ""
    if len(found) > 1 and found == list(range(found[0], found[-1] + 1)):
        return f"{found[0]}-{found[-1]}"
    return ",".join(str(i) for i in found)
