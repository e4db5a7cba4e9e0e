"""A whole training job as requests to the caching allocator: loading, steps of changing lengths, the optimizer.

weights      each tensor of its own; never released
micro-step   the tape's program at the length of the micro-batch, a layer that was run once for n played n times
optimizer    its states at the first step, its temporaries at every step; then the gradients go
hand-over    what a loop still holds after a micro-step lives until the next one's forward pass has ended

A release frees the youngest allocation of its size and category: within a layer that may be another one of the same
size than the real one. Ignored: the order in which layers of several kinds alternate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from advisor.costs import compiled
from advisor.costs.micro_batches import MicroBatch
from advisor.costs.static import static_memory
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.decoders.step import LEAVING_AUTOCAST, step_program
from advisor.optimizers import optimizer_row
from advisor.parameters.trained import trained_shapes
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import GRADIENT, Device
from advisor.tape.program import Part, Program
from advisor.terms import TermName

LATE = (TermName.OPTIMIZER_STATES, TermName.STEP_COUNTERS)
"""Static tensors that the first optimizer step makes."""
WARM_UP_STEPS = 10
"""After these the small pool has grown, and what it is asked is left out."""
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
    carried: tuple[int, ...]  # all else: what the loss and the model's outputs hold


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
    """A model trained by a recipe, as an allocator sees it."""

    def __init__(
        self,
        m: ModelSpec,
        recipe: Recipe,
        batches: Iterable[MicroBatch],
        stack: Stack = THIS_STACK,
        aside_bytes: Sequence[int] = (),
        device: Device = "cuda",
        capability: str = "",
    ) -> None:
        """`batches`: all micro-batches that there will be; `aside_bytes`: tensors beside the model's.

        `capability`: the card's compute capability, by which attention kernels are picked.
        """
        self.m, self.recipe, self.stack, self.device, self.capability = m, recipe, stack, device, capability
        distinct = set(batches)
        longest = max(distinct, key=lambda batch: batch.rows * batch.tokens)
        stack = stack.shaped(m, recipe, longest.rows, longest.tokens)
        static = static_memory(m, recipe, longest.rows, longest.tokens, longest.padded, stack)
        self.static = [*aside_bytes]
        self.static += [size for term, size, times in static.tensors if term not in LATE for _ in range(times) if size]
        self._programs: dict[int, MicroStep] = {}  # by the identity of the program
        firsts = (True,) if recipe.gradient_accumulation == 1 else (True, False)
        self.micro_steps = {(batch, first): self._micro_step(batch, first) for batch in distinct for first in firsts}
        self.bank = max(step.registers for step in self._programs.values())
        self.optimizer = _optimizer_requests(m, recipe, _BANKS * self.bank)

    def _micro_step(self, batch: MicroBatch, first: bool) -> tuple[MicroStep, Any]:
        """The requests of a micro-step, and the bytes of its slots; the first one of a step finds no gradients."""
        rows, tokens, padded = batch
        recipe = self.recipe.model_copy(update={"gradient_accumulation": 1}) if first else self.recipe
        program = step_program(
            self.m, recipe, rows, tokens, self.device, self.stack, padded=padded, capability=self.capability
        )
        step = self._programs.get(id(program))
        if step is None:
            step = self._programs[id(program)] = micro_step(program)
        return step, compiled.array(program.slot_bytes(rows, tokens, recipe.rank))


class OptimizerRequests(NamedTuple):
    """What the optimizer allocates: its states once, its temporaries at every step."""

    states: Requests
    temporaries: Requests
    sizes: Any
    registers: int


def _optimizer_requests(m: ModelSpec, recipe: Recipe, base: int) -> OptimizerRequests:
    """The requests of an optimizer step, with registers from `base` on, in the order of the layers."""
    row, shapes = optimizer_row(recipe.optimizer), trained_shapes(m, recipe)
    each = [p for turn in range(max(p.times for p in shapes)) for p in shapes if turn < p.times]
    counter = [row.step_counter_bytes] if row.step_counter_bytes else []
    states = [size for p in each for size in (*row.states(p), *counter)]
    states += row.table_bytes
    sizes, groups = list(states), []
    for p in each:
        temporaries = row.temporaries(p)
        groups.append(range(len(sizes), len(sizes) + len(temporaries)))
        sizes += temporaries
    if row.temporaries_at_once:
        groups = [range(len(states), len(sizes))]
    pairs = [(2 * (base + slot) + freed, slot) for group in groups for freed in range(2) for slot in group]
    return OptimizerRequests(
        _allocating(base, range(len(states))),
        Requests(compiled.array([code for code, _ in pairs]), compiled.array([slot for _, slot in pairs])),
        compiled.array(sizes),
        len(sizes),
    )


def _allocating(base: int, slots: Sequence[int]) -> Requests:
    return Requests(compiled.array([2 * (base + slot) for slot in slots]), compiled.array(slots))


class Run:
    """A process on one card that has loaded the model, and where its job stands."""

    def __init__(self, job: Job, expandable_segments: bool = False, capacity_bytes: int = 0) -> None:
        """`capacity_bytes` is what the driver can give (0: no limit; with expandable segments there is none)."""
        self.job = job
        self.steps = self._parity = 0
        self._carried: list[int] = []
        self._seen: set[tuple[MicroBatch, bool]] = set()
        first = _BANKS * job.bank + job.optimizer.registers
        registers = first + len(job.static)
        self.state = compiled.allocator(2 * registers + 4096, registers, expandable_segments, capacity_bytes)
        self.failed = not self._play(_allocating(first, range(len(job.static))), compiled.array(job.static))

    def _play(self, requests: Requests, sizes: Any, base: int = 0) -> bool:
        return bool(compiled.play(self.state, requests.codes, requests.slots, sizes, base))

    def _release(self, registers: Sequence[int]) -> None:
        codes = compiled.array([2 * register + 1 for register in registers])
        compiled.play(self.state, codes, codes, codes, 0)

    def empty_cache(self) -> None:
        """torch.cuda.empty_cache."""
        compiled.empty_cache(self.state)
        self._seen.clear()

    def step(self, batches: Sequence[MicroBatch]) -> bool:
        """One optimizer step with these micro-batches; False, for good, when the memory has run out."""
        if self.steps == WARM_UP_STEPS:
            self.state[compiled.LARGE_ONLY] = 1
        gradients: list[int] = []
        for index, batch in enumerate(batches):
            self.failed = self.failed or not self._micro_step(batch, index == 0, gradients)
        optimizer = self.job.optimizer
        if self.steps == 0:
            self.failed = self.failed or not self._play(optimizer.states, optimizer.sizes)
        self.failed = self.failed or not self._play(optimizer.temporaries, optimizer.sizes)
        if not self.failed:
            self._release(gradients)
            self.steps += 1
        return not self.failed

    def _micro_step(self, batch: MicroBatch, first: bool, gradients: list[int]) -> bool:
        """Forward and backward; its new gradients are added to `gradients`. False when the memory has run out.

        What began with the same tensors in the same segments as now and changed neither need not be played again.
        """
        if (batch, first) in self._seen:
            return True
        before = self._held
        step, sizes = self.job.micro_steps[batch, first]
        self._parity = 1 - self._parity
        base = (self._parity + (0 if first else 2)) * self.job.bank
        if not self._play(step.forward, sizes, base):
            return False
        self._release(self._carried)
        if not self._play(step.backward, sizes, base):
            return False
        self._carried = [base + register for register in step.carried if compiled.is_live(self.state, base + register)]
        if not self.job.stack.outputs_outlive_step:
            self._release(self._carried)
            self._carried = []
        fresh = [base + register for register in step.gradients if compiled.is_live(self.state, base + register)]
        gradients += fresh
        if self._held != before or self._carried or fresh or self.steps < WARM_UP_STEPS:
            self._seen.clear()
        else:
            self._seen.add((batch, first))
        return True

    @property
    def _held(self) -> tuple[int, ...]:
        """What changes with the segments."""
        return tuple(int(self.state[at]) for at in (compiled.RESERVED, compiled.PEAK_RESERVED, compiled.RELEASES))

    @property
    def peak_allocated_bytes(self) -> int:
        """Blocks in use at the highest, as torch.cuda.max_memory_allocated counts."""
        return int(self.state[compiled.PEAK_ALLOCATED])

    @property
    def reserved_bytes(self) -> int:
        """Segments now."""
        return int(self.state[compiled.RESERVED])

    @property
    def peak_reserved_bytes(self) -> int:
        """Segments at the highest, as torch.cuda.max_memory_reserved counts."""
        return int(self.state[compiled.PEAK_RESERVED])
