"""A whole training job as requests to the caching allocator: loading, steps of changing lengths, the optimizer.

weights      each tensor of its own; never released
micro-step   the tape's program at the length of the micro-batch, a layer that was run once for n played n times
optimizer    its states at the first step, its temporaries at every step; then the gradients go
hand-over    what a loop still holds after a micro-step lives until the next one's forward pass has ended
evaluation   forwards without gradients between two steps, the gradients gone
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from advisor.costs import compiled
from advisor.costs.machine_code import array
from advisor.costs.micro_batches import MicroBatch, evaluating
from advisor.costs.requests import MicroStep, Requests, micro_step
from advisor.costs.static import static_memory
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.decoders.step import evaluation_program, step_program
from advisor.optimizers import optimizer_row
from advisor.parameters.trained import trained_shapes
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Device
from advisor.tape.program import Program
from advisor.terms import TermName

LATE = (TermName.OPTIMIZER_STATES, TermName.STEP_COUNTERS)
"""Static tensors that the first optimizer step makes."""
WARM_UP_STEPS = 10
"""After these the small pool has grown, and what it is asked is left out."""
_BANKS = 4
"""Sets of registers: of the first micro-step of an optimizer step and of the others, each twice in turn."""


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
        evaluations: Iterable[MicroBatch] = (),
    ) -> None:
        """`batches`: all micro-batches that there will be; `aside_bytes`: tensors beside the model's.

        `evaluations`: all batches of evaluations. `capability`: the card's compute capability, by which attention
        kernels are picked.
        """
        m = stack.built(m)
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
        self.evaluations = {batch: self._evaluation(batch) for batch in set(evaluations)}
        self.bank = max(step.registers for step in self._programs.values())
        self.optimizer = _optimizer_requests(m, recipe, _BANKS * self.bank)

    def _micro_step(self, batch: MicroBatch, first: bool) -> tuple[MicroStep, Any]:
        """The requests of a micro-step, and the bytes of its slots; the first one of a step finds no gradients."""
        rows, tokens, padded, packed = batch
        recipe = self.recipe.model_copy(update={"gradient_accumulation": 1}) if first else self.recipe
        program = step_program(
            self.m, recipe, rows, tokens, self.device, self.stack, False, padded, False, self.capability, packed
        )
        return self._requests(program, batch)

    def _evaluation(self, batch: MicroBatch) -> tuple[MicroStep, Any]:
        """The same of one batch of an evaluation."""
        recipe = evaluating(self.recipe)
        return self._requests(
            evaluation_program(self.m, recipe, *batch[:2], self.device, self.stack, batch.padded, self.capability),
            batch,
        )

    def _requests(self, program: Program, batch: MicroBatch) -> tuple[MicroStep, Any]:
        step = self._programs.get(id(program))
        if step is None:
            step = self._programs[id(program)] = micro_step(program)
        return step, array(program.slot_bytes(batch.rows, batch.tokens, self.recipe.rank))


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
        Requests(array([code for code, _ in pairs]), array([slot for _, slot in pairs])),
        array(sizes),
        len(sizes),
    )


def _allocating(base: int, slots: Sequence[int]) -> Requests:
    return Requests(array([2 * (base + slot) for slot in slots]), array(slots))


class Run:
    """A process on one card that has loaded the model, and where its job stands."""

    def __init__(self, job: Job, expandable_segments: bool = False, capacity_bytes: int = 0) -> None:
        """`capacity_bytes` is what the driver can give (0: no limit; with expandable segments there is none)."""
        self.job = job
        self.steps = self._parity = 0
        self._carried: Any = array([])
        self._seen: set[object] = set()  # what changed nothing within a step, and will not as long as nothing else does
        self._idle: set[object] = set()  # the same of what began between two steps
        first = _BANKS * job.bank + job.optimizer.registers
        registers = first + len(job.static)
        self.state = compiled.allocator(2 * registers + 4096, registers, expandable_segments, capacity_bytes)
        self.failed = not self._play(_allocating(first, range(len(job.static))), array(job.static))

    def _play(self, requests: Requests, sizes: Any, base: int = 0) -> bool:
        return bool(compiled.play(self.state, requests.codes, requests.slots, sizes, base))

    def empty_cache(self) -> None:
        """torch.cuda.empty_cache."""
        compiled.empty_cache(self.state)
        self._forget()

    def step(self, batches: Sequence[MicroBatch]) -> bool:
        """One optimizer step with these micro-batches; False, for good, when the memory has run out."""
        if self.steps == WARM_UP_STEPS:
            self.state[compiled.LARGE_ONLY] = 1
        key = tuple(batches)
        if not self.failed and key not in self._idle:
            before = self._held
            self.failed = not self._whole_step(batches)
            self._note(self._idle, key, before)
        self.steps += not self.failed
        return not self.failed

    def _whole_step(self, batches: Sequence[MicroBatch]) -> bool:
        gradients: list[Any] = []
        for index, batch in enumerate(batches):
            if (batch, index == 0) not in self._seen:
                before = self._held
                fresh = self._micro_step(batch, index == 0)
                if fresh is None:
                    return False
                if len(fresh):
                    gradients.append(fresh)
                    self._seen.clear()
                else:
                    self._note(self._seen, (batch, index == 0), before)
        optimizer = self.job.optimizer
        if self.steps == 0 and not self._play(optimizer.states, optimizer.sizes):
            return False
        if not self._play(optimizer.temporaries, optimizer.sizes):
            return False
        for fresh in gradients:
            compiled.release(self.state, fresh)
            self._seen.clear()
        return True

    def _micro_step(self, batch: MicroBatch, first: bool) -> Any:
        """Forward and backward: the registers of its new gradients, or None when the memory has run out."""
        step, sizes = self.job.micro_steps[batch, first]
        self._parity = 1 - self._parity
        base = (self._parity + (0 if first else 2)) * self.job.bank
        if not self._play(step.forward, sizes, base):
            return None
        compiled.release(self.state, self._carried)
        if not self._play(step.backward, sizes, base):
            return None
        self._carried = compiled.living(self.state, step.carried, base)
        if not self.job.stack.outputs_outlive_step:
            compiled.release(self.state, self._carried)
            self._carried = self._carried[:0]
        return compiled.living(self.state, step.gradients, base)

    def evaluate(self, batches: Iterable[MicroBatch]) -> bool:
        """Forwards of an evaluation between two steps; False, for good, when the memory has run out."""
        base = (1 - self._parity) * self.job.bank
        for batch in batches:
            if self.failed or batch in self._idle:
                continue
            before = self._held
            step, sizes = self.job.evaluations[batch]
            self.failed = not self._play(step.forward, sizes, base)
            compiled.release(self.state, compiled.living(self.state, step.carried, base))
            self._note(self._idle, batch, before)
        return not self.failed

    def _note(self, known: set[object], key: object, before: tuple[int, ...]) -> None:
        """What began with the same tensors in the same segments and changed neither need not be played again."""
        if self._held != before:
            self._forget()
        elif not len(self._carried) and self.steps > WARM_UP_STEPS:
            known.add(key)

    def _forget(self) -> None:
        self._seen.clear()
        self._idle.clear()

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
