"""A whole training job as requests to the caching allocator: loading, steps of changing lengths, the optimizer.

weights      each tensor of its own; never released
micro-step   the tape's program at the length of the micro-batch, a layer that was run once for n played n times
optimizer    its states at the first step, its temporaries at every step; then the gradients go
hand-over    what the loop still holds after a micro-step lives until the next one's forward pass has ended

A release frees the youngest allocation of its size and category: within a layer that may be another one of the same
size than the real one. Ignored: the order in which layers of several kinds alternate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from advisor.costs import compiled
from advisor.costs.static import static_memory
from advisor.decoders.stack import Stack
from advisor.decoders.step import LEAVING_AUTOCAST, step_program
from advisor.optimizers import optimizer_row
from advisor.parameters.trained import trained_shapes
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import GRADIENT, Device
from advisor.tape.program import Part, Program
from advisor.terms import TermName

LATE = (TermName.OPTIMIZER_STATES, TermName.STEP_COUNTERS)
"""Static tensors that the first optimizer step makes."""
_BANKS = 4
"""Sets of registers: of the first micro-step of an optimizer step and of the others, each twice in turn."""


class Requests(NamedTuple):
    """2 * register to allocate a slot's size, 2 * register + 1 to release it, with the slot of each."""

    codes: Any
    slots: Any


class MicroStep(NamedTuple):
    """A program as requests, and what is alive after it."""

    program: Program
    forward: Requests
    backward: Requests
    registers: int
    gradients: tuple[int, ...]
    carried: tuple[int, ...]  # all else, which the loop still holds


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
    backward = writer.cut()
    assert forward is not None
    gradients: list[int] = []
    carried: list[int] = []
    for (_, category), registers in writer.live.items():
        (gradients if category == GRADIENT else carried).extend(registers)
    return MicroStep(program, forward, backward, writer.last + 1, tuple(sorted(gradients)), tuple(sorted(carried)))


def _drop_casts(writer: _Writer, parts: Iterable[Part]) -> None:
    """Leaving autocast frees the cached casts of the layers that were not run, too."""
    for part in parts:
        for slot, category, net in part.dropped:
            for _ in range(-net * (part.copies - 1)):
                writer.release(slot, category)


class Job:
    """A model trained by a recipe, as an allocator sees it: `start` loads it, `step` runs an optimizer step."""

    def __init__(
        self, m: ModelSpec, recipe: Recipe, longest: int, stack: Stack, aside_bytes: Sequence[int] = (), device: Device = "cuda",
        **flags: bool,
    ) -> None:
        """`longest`: tokens of the longest row; `aside_bytes`: tensors beside the model's; `flags`: of step_program."""
        self.m, self.recipe, self.stack, self.device, self.flags = m, recipe, stack, device, flags
        static = static_memory(m, recipe, recipe.micro_batch, longest)
        self.static = [*aside_bytes]
        self.static += [size for term, size, times in static.tensors if term not in LATE for _ in range(times) if size]
        self._steps: dict[int, MicroStep] = {}  # by the identity of the program
        self._micro_steps: dict[tuple[int, bool], tuple[MicroStep, Any]] = {}  # by length and whether it is the first
        self.bank = self._micro_step(longest, True)[0].registers
        if recipe.gradient_accumulation > 1:
            self.bank = max(self.bank, self._micro_step(longest, False)[0].registers)
        self._optimizer = _OptimizerRequests(m, recipe, _BANKS * self.bank)

    def _micro_step(self, length: int, first: bool) -> tuple[MicroStep, Any]:
        """The requests of a micro-step of this length, and the bytes of its slots."""
        found = self._micro_steps.get((length, first))
        if found is None:
            recipe, batch = self.recipe, self.recipe.micro_batch
            if first:
                recipe = recipe.model_copy(update={"gradient_accumulation": 1})
            program = step_program(self.m, recipe, batch, length, self.device, self.stack, **self.flags)
            step = self._steps.get(id(program))
            if step is None:
                step = self._steps[id(program)] = micro_step(program)
            found = step, compiled.array(program.slot_bytes(batch, length, recipe.rank))
            self._micro_steps[length, first] = found
        return found

    def start(self, expandable_segments: bool = False, capacity_bytes: int = 0, raises: bool = False) -> Run:
        """A process that has loaded the model."""
        return Run(self, expandable_segments, capacity_bytes, raises)


class _OptimizerRequests:
    """What the optimizer allocates: its states once, its temporaries at every step."""

    def __init__(self, m: ModelSpec, recipe: Recipe, base: int) -> None:
        row, shapes = optimizer_row(recipe.optimizer), trained_shapes(m, recipe)
        each = [p for turn in range(max(p.times for p in shapes)) for p in shapes if turn < p.times]  # layer by layer
        states = [size for p in each for size in (*row.states(p), *[row.step_counter_bytes] * bool(row.step_counter_bytes))]
        states += row.table_bytes
        temporaries = [row.temporaries(p) for p in each]
        sizes = [*states, *(size for group in temporaries for size in group)]
        self.sizes = compiled.array(sizes)
        self.states = _allocating(base, range(len(states)))
        self.registers = len(sizes)
        groups = [list(range(len(states), len(sizes)))] if row.temporaries_at_once else []
        if not groups:
            at = len(states)
            for group in temporaries:
                groups.append(list(range(at, at + len(group))))
                at += len(group)
        codes = [code for group in groups for code in (*(2 * i for i in group), *(2 * i + 1 for i in group))]
        slots = [code // 2 for code in codes]
        self.temporaries = Requests(compiled.array([code + 2 * base for code in codes]), compiled.array(slots))


def _allocating(base: int, slots: Sequence[int]) -> Requests:
    return Requests(compiled.array([2 * (base + slot) for slot in slots]), compiled.array(slots))


class Run:
    """A process on one card: the allocator, and where the job stands."""

    def __init__(self, job: Job, expandable_segments: bool, capacity_bytes: int, raises: bool) -> None:
        self.job = job
        self._steps = self._parity = 0
        self._carried = compiled.array([])
        optimizer = job._optimizer
        first = _BANKS * job.bank + optimizer.registers
        registers = first + len(job.static)
        self.state = compiled.allocator(
            2 * registers + 4096, registers, bool(expandable_segments), capacity_bytes, bool(raises)
        )
        self.failed = not self._play(_allocating(first, range(len(job.static))), compiled.array(job.static))

    def _play(self, requests: Requests, sizes: Any, base: int = 0) -> bool:
        return bool(compiled.play(self.state, requests.codes, requests.slots, sizes, base))

    def _release(self, registers: Sequence[int]) -> None:
        codes = compiled.array([2 * register + 1 for register in registers])
        compiled.play(self.state, codes, codes, codes, 0)

    def freeze_small(self) -> None:
        """Leave out what the small pool is asked from now on."""
        self.state[compiled.LARGE_ONLY] = 1

    def step(self, lengths: Sequence[int]) -> bool:
        """One optimizer step with micro-batches padded to these lengths; False, for good, when memory ran out."""
        job, gradients = self.job, []
        for index, length in enumerate(lengths):
            step, sizes = job._micro_step(length, index == 0)
            self._parity = 1 - self._parity
            base = (self._parity + (2 if index else 0)) * job.bank
            if self.failed or not self._play(step.forward, sizes, base):
                self.failed = True
                return False
            self._release(self._carried)
            if not self._play(step.backward, sizes, base):
                self.failed = True
                return False
            self._carried = [base + register for register in step.carried]
            gradients += [base + register for register in step.gradients]
        optimizer = job._optimizer
        if self._steps == 0 and not self._play(optimizer.states, optimizer.sizes):
            self.failed = True
        if self.failed or not self._play(optimizer.temporaries, optimizer.sizes):
            self.failed = True
            return False
        self._release(gradients)
        self._steps += 1
        return True

    @property
    def peak_allocated_bytes(self) -> int:
        """Blocks in use at the highest, as torch.cuda.max_memory_allocated counts."""
        return int(self.state[compiled.PEAK_ALLOCATED])

    @property
    def peak_reserved_bytes(self) -> int:
        """Segments at the highest, as torch.cuda.max_memory_reserved counts."""
        return int(self.state[compiled.PEAK_RESERVED])

    @property
    def capacity_bytes(self) -> int:
        """What the driver could give; of a run that raises it, what sufficed."""
        return int(self.state[compiled.CAPACITY])

    @property
    def releases(self) -> int:
        """Times the cache was emptied because the memory had run out."""
        return int(self.state[compiled.RELEASES])
