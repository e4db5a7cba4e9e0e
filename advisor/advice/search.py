"""For each method, the best recipe that fits: what the user fixed is kept, what is open is chosen.

Idea: the grid of micro-batch (every divisor of a card's rows), checkpointing and expandable segments is small and an
estimate takes less than a millisecond, so every plan that fits is estimated. Memory grows with the micro-batch; only
the last, which accumulates no gradients, may need less than the one before. The fastest wins; among those within 3 %
of it, which is less than the interval knows, first those that need no environment variable, then the smallest.
Ignores: what changes the training itself (target modules, optimizer, shorter rows) is not searched but priced, in
prices.py; the rank is lowered only where nothing else fits.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import NamedTuple

from advisor.advice.job import Job, first_recipe, host_fit, verdict_of
from advisor.answer import Verdict
from advisor.rules.lora_for_speed import DEFAULT_RANK
from advisor.specs import EMBEDS, Estimate, Method
from advisor.terms import TermName

BAND = 1.03
"""Plans that take at most this much longer than the fastest count as equally fast."""
_GRADIENT_BYTES = 8
"""More than a trained parameter's gradient can weigh: twice fp32, for what fragments around it."""
_HELD_FOR_GOOD = (
    TermName.BASE_WEIGHTS,
    TermName.QUANTIZATION_CONSTANTS,
    TermName.ADAPTERS,
    TermName.OPTIMIZER_STATES,
    TermName.BUFFERS,
)
"""Terms that no micro-batch and no checkpointing changes."""
_GROWS = (TermName.SAVED_ACTIVATIONS, TermName.LOGITS)
"""Terms that grow with the micro-batch, roughly in proportion."""


class Outcome(NamedTuple):
    """The best plan of a method, and whether it fits on the smallest card."""

    estimate: Estimate
    verdict: Verdict
    least: Estimate
    """The plan that needs the least memory, with expandable segments only where the best plan has them.

    Where nothing comes near to fitting, the checkpointed plan of the smallest micro-batch."""
    fitting: tuple[Estimate, ...]
    """Every plan that fits and could be chosen."""


def micro_batch_options(job: Job) -> tuple[int, ...]:
    """Micro-batches that divide a card's part of the batch, ascending; only the fixed one when it is fixed."""
    if job.question.micro_batch is not None:
        return (job.question.micro_batch,)
    batch = job.batch_per_card
    # nothing accumulates, or texts are compared within a micro-batch
    if job.question.optimizer_in_backward or job.model.kind == EMBEDS:
        return (batch,)
    small = [n for n in range(1, int(batch**0.5) + 1) if batch % n == 0]
    return tuple(sorted({*small, *(batch // n for n in small)}))


def best_outcome(job: Job, method: Method) -> Outcome:
    """The fastest recipe of `method` that fits, or the smallest one when none does."""
    outcome = _best_at_rank(job, method)
    if outcome.verdict != "fits" and method != "full" and job.question.rank is None and job.rank > DEFAULT_RANK:
        return _best_at_rank(job._replace(rank=DEFAULT_RANK), method)
    return outcome


def checkpointing_options(job: Job, method: Method) -> tuple[bool, ...]:
    """The checkpointing settings that are open."""
    preset = job.preset.get(method, {})
    asked = job.question.gradient_checkpointing
    fixed = preset.get("gradient_checkpointing") if asked is None else asked
    if isinstance(fixed, bool):  # neither may say
        return (fixed,)
    if job.traced is not None and len(job.traced[method]) == 1:
        return job.traced[method]
    return (True, False)


def segment_options(job: Job, method: Method) -> tuple[bool, ...]:
    """Whether expandable segments are open, off first."""
    preset = job.preset.get(method, {})
    fixed = "expandable_segments" in job.question.fixed or "expandable_segments" in preset
    if fixed or job.traced is not None:  # a trace is of one setting
        return (first_recipe(job, method).expandable_segments,)
    return (False, True)


class _Grid:
    """The plans of one method at one rank, each estimated once; only those that count are timed."""

    def __init__(self, job: Job, method: Method) -> None:
        self.job = job
        self.start = first_recipe(job, method)
        self.micro_batches = micro_batch_options(job)[: 1 if job.smallest else None]
        self.ways = checkpointing_options(job, method)
        self.segments = segment_options(job, method)
        self.memory_bytes = job.smallest_card.memory_bytes
        self._known: dict[tuple[bool, bool, int], Estimate] = {}

    def plan(self, expandable: bool, checkpointing: bool, index: int) -> Estimate:
        """The estimate of one plan, which may not be timed."""
        key = expandable, checkpointing, index
        if key not in self._known:
            micro_batch = self.micro_batches[index]
            changes = {
                "expandable_segments": expandable,
                "gradient_checkpointing": checkpointing,
                "micro_batch": micro_batch,
                "gradient_accumulation": self.job.batch_per_card // micro_batch,
            }
            self._known[key] = self.job.sized(self.start.model_copy(update=changes))
        return self._known[key]

    def timed(self, expandable: bool, checkpointing: bool, index: int) -> Estimate:
        """The same with its time, which it has from here on."""
        found = self._known[expandable, checkpointing, index] = self.job.timed(
            self.plan(expandable, checkpointing, index)
        )
        return found

    def hopeless(self) -> bool:
        """Whether no plan can fit: already what is held for good, or all tensors of the smallest plan, are too large.

        Without checkpointing, more rows or fewer segments there are never fewer tensors, but for gradients and for the
        scores of a single row.
        """
        one = self.plan(self.segments[-1], self.ways[0], 0)
        held = sum(map(one.memory.bytes_of, _HELD_FOR_GOOD))
        if self.ways[0] and not _computes_all_scores(one):
            gradients = one.trainable_parameters * _GRADIENT_BYTES
            tensors = one.memory.needed_bytes.likely - one.memory.bytes_of(TermName.FRAGMENTATION) - gradients
            held = max(held, round(tensors))
        return held > self.memory_bytes

    def fitting(self, expandable: bool, checkpointing: bool, known: Container[int]) -> Iterator[int]:
        """The micro-batches that fit, by index: all up to the first that does not, and the last if it does.

        Those that are `known` to fit are left out. A single row that does not fit says nothing of two: they have a
        mask, with which another attention kernel may run.
        """
        last = len(self.micro_batches) - 1
        for index in range(last + 1):
            if index in known:
                continue
            plan = self.plan(expandable, checkpointing, index)
            if plan.memory.needed_bytes.high <= self.memory_bytes:
                yield index
                continue
            if _computes_all_scores(plan):
                continue
            gradients = plan.trainable_parameters * _GRADIENT_BYTES
            if index < last and plan.memory.needed_bytes.high - gradients <= self.memory_bytes:
                whole = self.plan(expandable, checkpointing, last)
                if whole.memory.needed_bytes.high <= self.memory_bytes:
                    yield last
            return

    def smallest(self, expandable: bool) -> Estimate:
        """The plan that needs the least memory: one row at a time, or all at once if that grows less than gradients."""
        single = [self.plan(expandable, way, 0) for way in self.ways]
        found, last = list(single), len(self.micro_batches) - 1
        if last and any(map(_computes_all_scores, single)):
            found += [self.plan(expandable, way, 1) for way in self.ways]
        for way, one in zip(self.ways, single, strict=True):
            grows = sum(map(one.memory.bytes_of, _GROWS)) * (self.micro_batches[last] / self.micro_batches[0] - 1)
            if last and grows / 2 < one.trainable_parameters * _GRADIENT_BYTES:
                found.append(self.plan(expandable, way, last))
        return min(found, key=_least_memory)


def _computes_all_scores(one: Estimate) -> bool:
    """Whether attention without a mask computes and keeps every score, which it may not do under one."""
    return any(use.kernel == "math" and not use.masked for use in one.evidence.attention)


def _least_memory(one: Estimate) -> tuple[float, float]:
    return one.memory.needed_bytes.high, one.memory.needed_bytes.likely


def _best_at_rank(job: Job, method: Method) -> Outcome:
    """The best outcome with `job.rank` where the rank is open."""
    grid = _Grid(job, method)
    if grid.hopeless():
        best = grid.timed(grid.segments[-1], grid.ways[0], 0)
        return Outcome(best, verdict_of(best, grid.memory_bytes), best, ())
    found: dict[tuple[bool, int], Estimate] = {}
    for expandable in grid.segments:
        for way in grid.ways:
            known = {index for one, index in found if one is way}
            for index in grid.fitting(expandable, way, known):
                found[way, index] = grid.timed(expandable, way, index)
    if found:
        best = min(found.values(), key=_least_memory) if job.smallest else fastest(tuple(found.values()))
        least = job.timed(grid.smallest(best.recipe.expandable_segments))
        return Outcome(best, host_fit(best.memory, best.placement), least, tuple(found.values()))
    best = job.timed(grid.smallest(grid.segments[-1]))
    return Outcome(best, verdict_of(best, grid.memory_bytes), best, ())


def last_that_fits(count: int, fits: Callable[[int], bool], near: int) -> int:
    """The largest index below `count` that fits, -1 for none; `fits` holds up to some index and not beyond.

    Gallops from `near` with doubling strides, then bisects: two calls when `near` is right.
    """
    low, high = -1, count
    index, stride = min(max(near, 0), count - 1), 1
    while high - low > 1:
        if fits(index):
            low = index
        else:
            high = index
        if low == -1:
            index = max(index - stride, 0)
        elif high == count:
            index = min(index + stride, count - 1)
        else:
            index = (low + high) // 2
        stride *= 2
    return low


def fastest(plans: Sequence[Estimate]) -> Estimate:
    """Of the plans within 3 % of the shortest time the smallest, one without expandable segments before others.

    Without known times, the one that recomputes least, with the largest micro-batch.
    """
    timed = [(one.time.total_s.likely, one) for one in plans if one.time is not None]
    if not timed:
        return max(plans, key=lambda one: (not one.recipe.gradient_checkpointing, one.recipe.micro_batch))
    limit = min(total for total, _ in timed) * BAND
    return min(
        (one for total, one in timed if total <= limit),
        key=lambda one: (one.recipe.expandable_segments, *_least_memory(one)),
    )
