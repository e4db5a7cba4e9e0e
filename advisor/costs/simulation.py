"""The reserved memory of a whole job: its own micro-batches in random order, replayed through the allocator.

reserved   what is held after so many steps where there is room: it grows with every new length
needed     the smallest capacity at which the job never fails: before it fails, the allocator empties its cache
chance     how likely the job runs out of memory at a capacity: the share of orders that need more than it, where each
           need is anywhere between its bounds with the same likelihood, as a tensor's bytes are only known so well

An order is a seed: rows are drawn from the law of lengths, and one micro-batch, somewhere, is the worst one. What must
fit settles within some tens of steps, because an emptied cache forgets what came before; what is reserved does not.
With expandable segments every free page can go back to the driver, so that what must fit hardly depends on the order
(in 8 jobs 0.01 to 0.03 of the moving bytes beyond the peak): it is left to `costs.fragmentation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from random import Random
from typing import NamedTuple

from advisor.costs.job import Job, Run
from advisor.costs.micro_batches import MicroBatch, alike, drawn, worst
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.interval import Interval
from advisor.specs import ModelSpec, Recipe, Workload

Order = list[list[MicroBatch]]
"""The micro-batches of each optimizer step."""

SHORT_BATCHES, FEWEST_STEPS = 50, 4
"""Micro-batches by which the smallest capacity is found: with four times as many, it was the same within 0.5 % in four
of five jobs of an 8B model and 2 % more in one."""
ORDERS = 3
SPREAD_PART = 4
"""One order is replayed as a whole; a part of all orders shows how far they differ."""
ALIKE_STEPS = 20
"""Further steps of one length repeat the earlier ones."""
ACCURACY = 0.01
"""Relative, of the smallest capacity."""


def order_of(workload: Workload, recipe: Recipe, steps: int, seed: int, longest_first: bool = False) -> Order:
    """The micro-batches of a job's first steps; the worst one is among them, at the start if `longest_first`."""
    repeats = recipe.gradient_accumulation
    batches = list(islice(drawn(workload, recipe, seed), steps * repeats))
    at_worst = worst(workload, recipe)
    if longest_first or at_worst not in batches:
        batches[0 if longest_first else Random(seed).randrange(len(batches))] = at_worst
    return [batches[begin : begin + repeats] for begin in range(0, len(batches), repeats)]


class Simulated(NamedTuple):
    """What the orders of a job make of a card's memory, in bytes; the CUDA context comes on top."""

    steps: int  # optimizer steps replayed of the first order
    orders: int
    reserved: Interval  # where there is room
    needed: tuple[Interval, ...]  # the smallest capacity of each order; none with expandable segments


def chance_beyond(quantities: Sequence[Interval], limit: float) -> float:
    """How likely one of these, drawn at random, is more than `limit`: 0 to 1."""
    return sum(_beyond(quantity, limit) for quantity in quantities) / len(quantities)


def _beyond(quantity: Interval, limit: float) -> float:
    low, _, high = quantity
    if low == high:
        return float(low > limit)
    return min(1.0, max(0.0, (high - limit) / (high - low)))


def simulated(
    m: ModelSpec,
    recipe: Recipe,
    workload: Workload,
    steps: int,
    seed: int,
    aside_bytes: Sequence[int] = (),
    spread: tuple[float, float] = (0.0, 0.0),
    capability: str = "",
    on_step: Callable[[], None] | None = None,
    stack: Stack = THIS_STACK,
) -> Simulated:
    """Replay `steps` optimizer steps of a job: the same for the same seed.

    `aside_bytes`: tensors that are held beside the model's. `spread`: relative bounds of the bytes of all tensors.
    `capability`: that of the card.
    """
    seeds = range(seed, seed + (1 if alike(workload) else ORDERS))
    steps = min(steps, ALIKE_STEPS) if len(seeds) == 1 else steps
    part, short = -(-steps // SPREAD_PART), min(steps, short_steps(recipe))
    whole = order_of(workload, recipe, steps, seed)
    parts = [order_of(workload, recipe, part, one) for one in seeds]
    shorts = [] if recipe.expandable_segments else [order_of(workload, recipe, short, one) for one in seeds]
    simulator = Simulator(m, recipe, [whole, *parts, *shorts], aside_bytes, stack, capability, on_step)
    likely = simulator.reserved_bytes(whole)
    reserved = [simulator.reserved_bytes(order) for order in parts] if len(parts) > 1 else [likely]
    middle = sorted(reserved)[len(reserved) // 2]
    low, high = spread
    return Simulated(
        steps,
        len(seeds),
        Interval(likely * min(reserved) / middle * (1 - low), likely, likely * max(reserved) / middle * (1 + high)),
        tuple(Interval.around(float(simulator.needed_bytes(order)), low, high) for order in shorts),
    )


def short_steps(recipe: Recipe) -> int:
    """Steps by which the smallest capacity is found."""
    return max(FEWEST_STEPS, -(-SHORT_BATCHES // recipe.gradient_accumulation))


class Simulator:
    """Replays orders of one job."""

    def __init__(
        self,
        m: ModelSpec,
        recipe: Recipe,
        orders: Iterable[Order],
        aside_bytes: Sequence[int] = (),
        stack: Stack = THIS_STACK,
        capability: str = "",
        on_step: Callable[[], None] | None = None,
    ) -> None:
        """`aside_bytes`: tensors that are held beside the model's; `on_step` is called after each replayed step."""
        batches = (batch for order in orders for step in order for batch in step)
        self.job = Job(m, recipe, batches, stack, aside_bytes, capability=capability)
        self._on_step = on_step

    def reserved_bytes(self, order: Order) -> int:
        """What an order makes the allocator reserve where there is room, at the highest."""
        return self._roomy(order).peak_reserved_bytes

    def _roomy(self, order: Order) -> Run:
        return self._played(Run(self.job, self.job.recipe.expandable_segments), order)

    def needed_bytes(self, order: Order) -> int:
        """The smallest capacity at which the order never fails without expandable segments, within ACCURACY.

        That more memory is always enough where less was is taken for granted; it nearly always is.
        """
        whole = self._roomy(order)
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
