"""The reserved memory of a whole job: its own micro-batches in random order, replayed through the allocator.

reserved   what is held after so many steps where there is room: it grows with every new length
needed     the smallest capacity at which the job never fails: before it fails, the allocator empties its cache
chance     how likely the job runs out of memory at a capacity: the share of orders that need more than it, where each
           need is anywhere between its bounds with the same likelihood, as a tensor's bytes are only known so well

Evaluations run where the job has them, and leave their segments to the steps that follow.
An order is a seed: rows are drawn from the law of lengths, and one micro-batch, somewhere, is the worst one. What must
fit settles within some tens of steps, because an emptied cache forgets what came before; what is reserved does not.
With expandable segments every free page can go back to the driver, so that what must fit hardly depends on the order
(in 8 jobs 0.01 to 0.03 of the moving bytes beyond the peak): it is left to `costs.fragmentation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from math import exp, fsum, log, sqrt
from random import Random
from statistics import mean, stdev
from typing import NamedTuple

from advisor.costs.allocator import SMALL_BYTES
from advisor.costs.job import Job, Run
from advisor.costs.micro_batches import MicroBatch, alike, drawn, evaluating, worst
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.interval import Interval
from advisor.parameters.trained import trained_shapes
from advisor.specs import ModelSpec, Recipe, Workload


class Step(NamedTuple):
    """The micro-batches of an optimizer step, and the batches of the evaluation that follows it."""

    batches: Sequence[MicroBatch]
    evaluation: Sequence[MicroBatch] = ()


Order = list[Step]

SHORT_BATCHES, FEWEST_STEPS = 50, 4
"""Micro-batches by which the smallest capacity is looked for, before a longer part of the order is tried with it."""
TRIED_BATCHES = 250
"""Micro-batches that the capacity must suffice for. Of 24 orders of 1,000 steps, none needed more than its first 50
micro-batches in three jobs of four, and some 1 % more in the fourth."""
ORDERS = 5
SURE = 2.132 * sqrt(1 + 1 / ORDERS)
"""Standard deviations of five orders, on either side of their mean, that hold a further one nine times out of ten:
Student's t of four degrees of freedom, for normal errors (of the logarithm: a size is never negative)."""
STEPS, MICRO_BATCHES = 1000, 2000
"""Replayed at most where their number is left open."""
ALIKE_STEPS = 20
"""Further steps of one length repeat the earlier ones."""
ACCURACY = 0.01
"""Relative, of the smallest capacity."""
EVALUATED_BATCHES = 50
"""Batches of an evaluation that are replayed at most: it holds the same rows each time."""


def order_of(
    workload: Workload,
    recipe: Recipe,
    steps: int,
    seed: int,
    longest_first: bool = False,
    evaluate_every: int = 0,
) -> Order:
    """A job's first steps; the worst micro-batch is among them, at the start if `longest_first`.

    Evaluations, if the recipe has any, follow every `evaluate_every` steps (0: none), of few steps the half: training
    goes on after at least one of them.
    """
    repeats = recipe.gradient_accumulation
    batches = _with_worst(workload, recipe, steps * repeats, seed, longest_first)
    order = [Step(batches[begin : begin + repeats]) for begin in range(0, len(batches), repeats)]
    if recipe.eval_batch and evaluate_every:
        asked = -(-workload.eval_examples // recipe.eval_batch) or EVALUATED_BATCHES
        evaluation = _with_worst(workload, evaluating(recipe), min(asked, EVALUATED_BATCHES), ~seed)
        every = min(evaluate_every, max(1, steps // 2))
        order[every - 1 :: every] = [step._replace(evaluation=evaluation) for step in order[every - 1 :: every]]
    return order


def _with_worst(
    workload: Workload, recipe: Recipe, count: int, seed: int, longest_first: bool = False
) -> list[MicroBatch]:
    """Micro-batches in random order, of which one is the worst."""
    batches = list(islice(drawn(workload, recipe, seed), count))
    at_worst = worst(workload, recipe)
    if longest_first or at_worst not in batches:
        batches[0 if longest_first else Random(seed).randrange(count)] = at_worst
    return batches


class Simulated(NamedTuple):
    """What the orders of a job make of a card's memory, in bytes; the CUDA context comes on top."""

    steps: int  # optimizer steps replayed of each order
    orders: int
    reserved: Interval  # where there is room
    needed: Interval | None  # the smallest capacity at which an order never fails; None with expandable segments
    each: tuple[Interval, ...]  # that of each order


def chance_beyond(quantities: Sequence[Interval], limit: float) -> float:
    """How likely one of these, drawn at random, is more than `limit`: 0 to 1."""
    return fsum(_beyond(quantity, limit) for quantity in quantities) / len(quantities)


def _beyond(quantity: Interval, limit: float) -> float:
    low, _, high = quantity
    if low == high:
        return float(low > limit)
    return min(1.0, max(0.0, (high - limit) / (high - low)))


def predicted(sizes: Sequence[float], low: float = 0.0, high: float = 0.0) -> Interval:
    """What a further order is expected to hold, from those that were replayed; exact of one, 90 % sure of several.

    `low`, `high`: relative bounds of the sizes themselves, which come on top.
    """
    logs = [log(size) for size in sizes]
    aside = SURE * stdev(logs) if len(logs) == ORDERS else 0.0
    likely = exp(mean(logs)) if aside else sizes[0]
    return Interval(likely * exp(-aside) * (1 - low), likely, likely * exp(aside) * (1 + high))


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
    evaluate_every: int = 0,
    stack: Stack = THIS_STACK,
) -> Simulated:
    """Replay `steps` optimizer steps of a job: the same for the same seed.

    `aside_bytes`: tensors that are held beside the model's. `spread`: relative bounds of the bytes of all tensors.
    `capability`: that of the card. `evaluate_every`: that of `order_of`.
    """
    seeds = range(seed, seed + (1 if alike(workload) else ORDERS))
    steps = min(steps, ALIKE_STEPS) if len(seeds) == 1 else steps
    tried, short = (min(steps, at_most) for at_most in (tried_steps(recipe), short_steps(recipe)))
    orders = [
        [order_of(workload, recipe, count, one, evaluate_every=evaluate_every) for count in (steps, tried, short)]
        for one in seeds
    ]
    simulator = Simulator(m, recipe, chain.from_iterable(orders), aside_bytes, stack, capability, on_step)
    reserved = predicted([float(simulator.reserved_bytes(whole)) for whole, *_ in orders], *spread)
    if recipe.expandable_segments:
        return Simulated(steps, len(seeds), reserved, None, ())
    each = [float(simulator.needed_bytes(part, start)) for _, part, start in orders]
    needed = predicted(each, *spread)
    return Simulated(
        steps,
        len(seeds),
        Interval(*map(max, reserved, needed)),  # no order reserves less than it needs
        needed,
        tuple(Interval.around(least, *spread) for least in each),
    )


def default_steps(m: ModelSpec, recipe: Recipe) -> int:
    """Optimizer steps to replay where their number is left open: some seconds for a model of 8B parameters.

    Under accumulation as many as have MICRO_BATCHES of them; half as many where the gradients of one are large blocks
    beside the next one's, so that a length that came before is played again.
    """
    large = any(p.bytes > SMALL_BYTES for p in trained_shapes(m, recipe))
    return min(STEPS, -(-MICRO_BATCHES // (2 if large else 1) // recipe.gradient_accumulation))


def short_steps(recipe: Recipe) -> int:
    """Steps by which the smallest capacity is looked for."""
    return max(FEWEST_STEPS, -(-SHORT_BATCHES // recipe.gradient_accumulation))


def tried_steps(recipe: Recipe) -> int:
    """Steps that the smallest capacity must suffice for."""
    return max(FEWEST_STEPS, -(-TRIED_BATCHES // recipe.gradient_accumulation))


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
        steps = [step for order in orders for step in order]
        batches = {batch for step in steps for batch in step.batches}
        evaluations = {batch for step in steps for batch in step.evaluation}
        self.job = Job(m, recipe, batches, stack, aside_bytes, capability=capability, evaluations=evaluations)
        self._on_step = on_step

    def reserved_bytes(self, order: Order) -> int:
        """What an order makes the allocator reserve where there is room, at the highest."""
        return self._roomy(order).peak_reserved_bytes

    def _roomy(self, order: Order) -> Run:
        return self._played(Run(self.job, self.job.recipe.expandable_segments), order)

    def needed_bytes(self, order: Order, start: Order | None = None) -> int:
        """The smallest capacity at which the order never fails without expandable segments, within ACCURACY.

        `start`: a short order of the same rows, by which it is looked for; where the whole order fails with it, more is
        tried. That more memory is always enough where less was is taken for granted; it nearly always is.
        """
        begun = self._roomy(start or order)
        found = self._smallest(start or order, begun.peak_allocated_bytes - 1, begun.peak_reserved_bytes)
        if start is None:
            return found
        low, missing = found, ACCURACY
        while self.fails(order, found):
            low, found = found, round(found * (1 + missing))
            missing *= 2
        return self._smallest(order, low, found)

    def _smallest(self, order: Order, low: int, high: int) -> int:
        """The smallest capacity at which the order never fails: not `low` or less, but `high`."""
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
            if not (run.step(step.batches) and run.evaluate(step.evaluation)):
                break
            if self._on_step is not None:
                self._on_step()
        return run
