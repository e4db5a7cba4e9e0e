"""For each method, the best recipe that fits: what the user fixed is kept, what is open is chosen.

Idea: the grid of micro-batch (every divisor of a card's rows), checkpointing and expandable segments is small and an
estimate takes less than a millisecond, so every plan that fits is estimated. Memory grows with the micro-batch; only
the last, which accumulates no gradients, may need less than the one before. The fastest wins; among those within 3 %
of it, which is less than the interval knows, first those that need no environment variable, then the smallest.
Ignores: what changes the training itself (target modules, optimizer, shorter rows) is not searched but priced, in
prices.py; the rank is lowered only where nothing else fits.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from advisor.advice.workload import workload_of
from advisor.answer import Verdict
from advisor.costs.device import DeviceProfile
from advisor.interval import Interval
from advisor.knobs import Question
from advisor.lengths import RowLengths
from advisor.parameters.targets import default_targets
from advisor.recipes import build_recipe, flag
from advisor.rules.lora_for_speed import DEFAULT_RANK
from advisor.specs import (
    Estimate,
    GpuSpec,
    Method,
    Model,
    Placement,
    Recipe,
    TimeEstimate,
    Workload,
)
from advisor.terms import TermName

if TYPE_CHECKING:
    from advisor.dataset.summary import Measured

Estimator = Callable[[Model, Recipe, Workload, GpuSpec, Placement, DeviceProfile | None], Estimate]

WITHOUT_BF16 = ("Kepler", "Maxwell", "Pascal", "Volta", "Turing")
DEFAULT_EVAL_BATCH = 8
"""per_device_eval_batch_size of transformers 5.23's TrainingArguments."""
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


class Job(NamedTuple):
    """What to search for: the whole workload on cards like any of `cards`, as many as `placement` says.

    The knobs of `question` are kept.
    """

    model: Model
    workload: Workload
    placement: Placement
    cards: tuple[GpuSpec, ...]
    question: Question
    estimator: Estimator
    rank: int = DEFAULT_RANK
    targets: tuple[str, ...] | None = None
    """Target modules where the question leaves them open; None for the model's default."""
    smallest: bool = False
    """Search for the least memory, not for the least time."""
    preset: Mapping[Method, Mapping[str, object]] = {}
    """What the trainer sets by itself, by method; `question` takes precedence."""
    collator: Mapping[str, object] = {}
    """How the trainer by itself makes micro-batches of rows; `question` takes precedence."""
    traced: Mapping[Method, tuple[bool, ...]] | None = None
    """For a traced model, the checkpointing settings that were traced, by method; None for the formula."""
    profile: DeviceProfile | None = None
    """How the card was measured; None for the default of each card's generation."""
    data: Measured | None = None
    """The rows of the data file, if there is one."""

    @property
    def smallest_card(self) -> GpuSpec:
        """The card with the least memory: the verdict is about it."""
        return min(self.cards, key=lambda card: card.memory_bytes)

    @property
    def default_targets(self) -> tuple[str, ...]:
        """Target modules where the question leaves them open."""
        return self.targets or default_targets(self.model)

    @property
    def batch_per_card(self) -> int:
        """Rows of an optimizer step that each card does."""
        return self.workload.batch_size // self.placement.gpus

    def cut_to(self, seq_len: int) -> Job:
        """The same job with rows of at most `seq_len` tokens, which is no more than now: longer rows are cut."""
        lengths = {"seq_len": seq_len}
        if self._mean_is_stated:
            law = RowLengths(self.workload.mean_seq_len, self.workload.seq_len)
            lengths["mean_seq_len"] = max(1, round(law.mean_cut_at(seq_len)))
        return self.with_rows(lengths)

    def with_rows(self, changes: Mapping[str, object]) -> Job:
        """The same job with other knobs of its rows."""
        workload = workload_of(self.question.fixing(changes), self.model, self.data, self.collator)
        return self._replace(workload=workload)

    @property
    def _mean_is_stated(self) -> bool:
        """Whether the mean length of a row has to be said: a data file gives it by itself."""
        return self.data is None or self.question.mean_seq_len is not None

    @property
    def rows_flags(self) -> tuple[str, ...]:
        """The flags that fix the lengths of the rows."""
        longest = flag("seq_len", self.workload.seq_len)
        return (longest, flag("mean_seq_len", self.workload.mean_seq_len)) if self._mean_is_stated else (longest,)

    def estimate(self, recipe: Recipe) -> Estimate:
        """Costs of `recipe` on the smallest card."""
        return self.estimate_on(self.smallest_card, recipe)

    def estimate_on(self, card: GpuSpec, recipe: Recipe) -> Estimate:
        """Costs of `recipe` where all cards are like `card`."""
        return self.estimator(self.model, recipe, self.workload, card, self.placement, self.profile)


class Outcome(NamedTuple):
    """The best plan of a method, and whether it fits on the smallest card."""

    estimate: Estimate
    verdict: Verdict
    least: Estimate
    """The plan that needs the least memory, with expandable segments only where the best plan has them.

    Where nothing comes near to fitting, the checkpointed plan of the smallest micro-batch."""
    fitting: tuple[Estimate, ...]
    """Every plan that fits and could be chosen."""


def has_bf16(card: GpuSpec) -> bool:
    """Whether the card computes in bf16; an unknown card is assumed to be recent."""
    return card.bf16_flop_per_s > 0 or card.generation not in WITHOUT_BF16


def verdict_of(estimate: Estimate, memory_bytes: int) -> Verdict:
    """The verdict on what an estimate says must fit."""
    return fit_of(estimate.memory.needed_bytes, memory_bytes)


def fit_of(needed: Interval, memory_bytes: int) -> Verdict:
    """fits when even the high bound does; tight when only the likely value does."""
    if needed.high <= memory_bytes:
        return "fits"
    return "tight" if needed.likely <= memory_bytes else "does_not_fit"


def first_recipe(job: Job, method: Method) -> Recipe:
    """The recipe of `method` before anything is searched: what is fixed, the trainer's preset, defaults for the rest.

    A card without bf16 gets fp16; full fine-tuning then keeps fp32 weights, because torch.amp.GradScaler cannot
    unscale fp16 gradients.
    """
    half = "bfloat16" if any(has_bf16(card) for card in job.cards) else "float16"
    preset = dict(job.preset.get(method, {}))
    if half == "float16" and preset.get("base_dtype") == "bfloat16":
        del preset["base_dtype"]  # trainers, too, take fp16 on such a card
    defaults: dict[str, object] = {
        "rank": job.rank,
        "base_dtype": "float32" if method == "full" and half == "float16" else half,
        "attention": job.model.default_attention,
        "target_modules": job.default_targets,
        "eval_batch": DEFAULT_EVAL_BATCH if job.workload.eval_examples else 0,
    }
    return build_recipe(method, job.question.recipe_fields, preset, defaults)


def micro_batch_options(job: Job) -> tuple[int, ...]:
    """Micro-batches that divide a card's part of the batch, ascending; only the fixed one when it is fixed."""
    if job.question.micro_batch is not None:
        return (job.question.micro_batch,)
    batch = job.batch_per_card
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
    """The plans of one method at one rank, each estimated once."""

    def __init__(self, job: Job, method: Method) -> None:
        self.job = job
        self.start = first_recipe(job, method)
        self.micro_batches = micro_batch_options(job)[: 1 if job.smallest else None]
        self.ways = checkpointing_options(job, method)
        self.segments = segment_options(job, method)
        self.memory_bytes = job.smallest_card.memory_bytes
        self._known: dict[tuple[bool, bool, int], Estimate] = {}

    def plan(self, expandable: bool, checkpointing: bool, index: int) -> Estimate:
        """The estimate of one plan."""
        key = expandable, checkpointing, index
        if key not in self._known:
            micro_batch = self.micro_batches[index]
            changes = {
                "expandable_segments": expandable,
                "gradient_checkpointing": checkpointing,
                "micro_batch": micro_batch,
                "gradient_accumulation": self.job.batch_per_card // micro_batch,
            }
            self._known[key] = self.job.estimate(self.start.model_copy(update=changes))
        return self._known[key]

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
        found = [self.plan(expandable, way, 0) for way in self.ways]
        last = len(self.micro_batches) - 1
        if last and any(map(_computes_all_scores, found)):
            found += [self.plan(expandable, way, 1) for way in self.ways]
        for way, one in zip(self.ways, tuple(found), strict=False):
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
        best = grid.plan(grid.segments[-1], grid.ways[0], 0)
        return Outcome(best, verdict_of(best, grid.memory_bytes), best, ())
    found: dict[tuple[bool, int], Estimate] = {}
    for expandable in grid.segments:
        for way in grid.ways:
            known = {index for one, index in found if one is way}
            for index in grid.fitting(expandable, way, known):
                found[way, index] = grid.plan(expandable, way, index)
    if found:
        best = min(found.values(), key=_least_memory) if job.smallest else fastest(tuple(found.values()))
        least = grid.smallest(best.recipe.expandable_segments)
        return Outcome(best, "fits", least, tuple(found.values()))
    best = grid.smallest(grid.segments[-1])
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


class CardTimes(NamedTuple):
    """The time over several cards (the hull of their intervals), with the fastest and the slowest card."""

    time: TimeEstimate
    fastest: str
    slowest: str


def time_over_cards(job: Job, one: Estimate, cards: Sequence[GpuSpec]) -> CardTimes | None:
    """Time of the recipe of `one` over all `cards` of known speed, if any; `one` is its estimate for the smallest card.

    Only cards that could be the fastest or the slowest are estimated: a card dominated in every rate cannot be the
    fastest.
    The likely value is the geometric mean of the two ends' likely values.
    """
    known: list[tuple[str, TimeEstimate]] = []
    for card in end_cards(cards):
        here = card == job.smallest_card
        time = (one if here else job.estimate_on(card, one.recipe)).time
        if time is not None:
            known.append((card.name, time))
    if not known:
        return None
    known.sort(key=lambda item: item[1].total_s.likely)
    (fastest, quick), (slowest, slow) = known[0], known[-1]
    times = [time for _, time in known]
    middle = quick.model_copy(
        update={
            "micro_step_s": _span([time.micro_step_s for time in times]),
            "step_s": _span([time.step_s for time in times]),
            "total_s": _span([time.total_s for time in times]),
            "tokens_per_s": (quick.tokens_per_s * slow.tokens_per_s) ** 0.5,
            "mfu": (quick.mfu * slow.mfu) ** 0.5,
            "energy_j": _span([time.energy_j for time in times if time.energy_j]) if quick.energy_j else None,
            "bound": slow.bound,
        }
    )
    return CardTimes(middle, fastest, slowest)


def _span(intervals: Sequence[Interval]) -> Interval:
    likely = [interval.likely for interval in intervals]
    hull = Interval.hull(intervals)
    return Interval(hull.low, (min(likely) * max(likely)) ** 0.5, hull.high)


def end_cards(cards: Sequence[GpuSpec]) -> tuple[GpuSpec, ...]:
    """The cards that can be the fastest or slowest: no other is at least as good (or as bad) in every rate."""
    known = [card for card in cards if card.speed_known]

    def rates(card: GpuSpec) -> tuple[float, ...]:
        half = card.bf16_flop_per_s or card.fp16_flop_per_s
        return (card.memory_bytes_per_s, half, card.tf32_flop_per_s, card.fp32_flop_per_s)

    distinct = list({rates(card): card for card in known}.items())

    def at_an_end(mine: tuple[float, ...]) -> bool:
        others = [other for other, _ in distinct if other != mine]
        beaten = any(all(o >= m for o, m in zip(other, mine, strict=True)) for other in others)
        beats = any(all(o <= m for o, m in zip(other, mine, strict=True)) for other in others)
        return not (beaten and beats)

    return tuple(card for mine, card in distinct if at_an_end(mine))
