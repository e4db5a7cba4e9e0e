"""The reserved memory of a whole job: its own micro-batches in random order, replayed through the allocator.

reserved   what is held after so many steps where there is room: it grows with every new length
needed     the smallest capacity at which the job never fails: before it fails, the allocator empties its cache
chance     how likely the job runs out of memory at a capacity: the share of orders that need more than it, given that
           a tensor's bytes are known within ALLOCATED_SPREAD

An order is a seed: rows are drawn from the law of lengths, and one micro-batch, somewhere, is the worst one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from random import Random
from typing import NamedTuple

from advisor.costs import compiled
from advisor.costs.job import Job, Run
from advisor.costs.micro_batches import MicroBatch, drawn, worst
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.specs import ModelSpec, Recipe, Workload

Order = list[list[MicroBatch]]
"""The micro-batches of each optimizer step."""

Progress = Callable[[int, int], None]
"""Told how many of how many steps were replayed."""

SHORT_STEPS = 100
"""Steps of the orders that show the spread, and of those that find what must fit."""
ACCURACY = 0.005
"""Relative, of the smallest capacity."""


def order_of(workload: Workload, recipe: Recipe, steps: int, seed: int, longest_first: bool = False) -> Order:
    """The micro-batches of a job's first steps; the worst one is among them, at the start if `longest_first`."""
    repeats = recipe.gradient_accumulation
    batches = list(islice(drawn(workload, recipe, seed), steps * repeats))
    at_worst = worst(workload, recipe)
    if longest_first or at_worst not in batches:
        batches[0 if longest_first else Random(seed).randrange(len(batches))] = at_worst
    return [batches[begin : begin + repeats] for begin in range(0, len(batches), repeats)]


class Held(NamedTuple):
    """What one order makes of the memory, in bytes."""

    reserved_bytes: int  # at the highest, where there is room
    early_bytes: int  # the same after SHORT_STEPS
    needed_bytes: int  # the smallest capacity


class Simulator:
    """Replays orders of one job."""

    def __init__(
        self,
        m: ModelSpec,
        recipe: Recipe,
        orders: Sequence[Order],
        aside_bytes: Sequence[int] = (),
        stack: Stack = THIS_STACK,
        progress: Progress | None = None,
    ) -> None:
        self.recipe, self.orders, self.progress = recipe, orders, progress
        batches = (batch for order in orders for step in order for batch in step)
        self.job = Job(m, recipe, batches, stack, aside_bytes)
        self.done = 0

    def held(self, order: Order) -> Held:
        """Replay one order with room and, to find the smallest capacity, its start without."""
        run = Run(self.job, self.recipe.expandable_segments)
        early = self._played(run, order[:SHORT_STEPS]).peak_reserved_bytes
        run = self._played(run, order[SHORT_STEPS:])
        return Held(run.peak_reserved_bytes, early, 0)

    def needed_bytes(self, order: Order) -> int:
        """The smallest capacity at which the order never fails, an upper bound within ACCURACY.

        That more memory is always enough where less was is taken for granted; it nearly always is.
        """
        high = self._played(Run(self.job, False), order).peak_reserved_bytes
        low = self._played(Run(self.job, False), []).peak_reserved_bytes
        while high - low > ACCURACY * high:
            middle = (low + high) // 2
            if self._played(Run(self.job, False, middle), order).failed:
                low = middle
            else:
                high = middle
        return high

    def _played(self, run: Run, order: Order) -> Run:
        for step in order:
            if not run.step(step):
                break
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, 0)
        return run
