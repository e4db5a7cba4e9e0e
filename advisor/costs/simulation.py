"""The reserved memory of a whole job: its own micro-batches in random order, replayed through the allocator.

reserved   what is held after so many steps where there is room: it grows with every new length
needed     the smallest capacity at which the job never fails: before it fails, the allocator empties its cache
chance     how likely the job runs out of memory at a capacity: the share of orders that need more than it, given that
           a tensor's bytes are known within ALLOCATED_SPREAD

An order is a seed: rows are drawn from the law of lengths, and one micro-batch, somewhere, is the worst one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from random import Random

from advisor.costs.job import Job, Run
from advisor.costs.micro_batches import MicroBatch, drawn, worst
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.specs import ModelSpec, Recipe, Workload

Order = list[list[MicroBatch]]
"""The micro-batches of each optimizer step."""

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


class Simulator:
    """Replays orders of one job."""

    def __init__(
        self,
        m: ModelSpec,
        recipe: Recipe,
        orders: Iterable[Order],
        aside_bytes: Sequence[int] = (),
        stack: Stack = THIS_STACK,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        """`aside_bytes`: tensors that are held beside the model's; `on_step` is called after each replayed step."""
        batches = (batch for order in orders for step in order for batch in step)
        self.job = Job(m, recipe, batches, stack, aside_bytes)
        self._on_step = on_step

    def reserved_bytes(self, order: Order, expandable_segments: bool = False) -> int:
        """What an order makes the allocator reserve where there is room, at the highest."""
        return self._played(Run(self.job, expandable_segments), order).peak_reserved_bytes

    def needed_bytes(self, order: Order) -> int:
        """The smallest capacity at which the order never fails, an upper bound within ACCURACY.

        That more memory is always enough where less was is taken for granted; it nearly always is.
        """
        whole = self._played(Run(self.job), order)
        low, high = whole.peak_allocated_bytes - 1, whole.peak_reserved_bytes
        while high - low > ACCURACY * high:
            middle = (low + high) // 2
            if self.fails(order, middle):
                low = middle
            else:
                high = middle
        return high

    def fails(self, order: Order, capacity_bytes: int) -> bool:
        """Whether the memory runs out, the cache emptied, on a device that can give this much."""
        return self._played(Run(self.job, capacity_bytes=capacity_bytes), order).failed

    def _played(self, run: Run, order: Order) -> Run:
        for step in order:
            if not run.step(step):
                break
            if self._on_step is not None:
                self._on_step()
        return run
