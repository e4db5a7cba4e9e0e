"""For each method, the best recipe that fits: what the user fixed is kept, what is open is chosen.

Idea: memory only grows with the micro-batch, so the largest that fits is found by galloping from the previous
method's answer; gradient accumulation keeps the effective batch. Of all recipes tried that fit, the fastest
wins; among those within 1 % of it, the smallest.
Ignores: only checkpointing, micro-batch and (downwards) the rank are searched, where neither the user nor the
trainer's preset fixed them; other open knobs have defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from advisor.answer import Verdict
from advisor.costs.device import DeviceProfile
from advisor.interval import Interval
from advisor.knobs import Question
from advisor.parameters.targets import default_targets, same_layers
from advisor.recipes import build_recipe
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

Estimator = Callable[[Model, Recipe, Workload, GpuSpec, Placement, DeviceProfile | None], Estimate]

DEFAULT_RANK = 16
WITHOUT_BF16 = ("Kepler", "Maxwell", "Pascal", "Volta", "Turing")
_TIE = 1.01


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
    smallest: bool = False
    """Search for the least memory, not for the least time."""
    preset: Mapping[Method, Mapping[str, object]] = {}
    """What the trainer sets by itself, by method; `question` takes precedence."""
    traced: Mapping[Method, tuple[bool, ...]] | None = None
    """For a traced model, the checkpointing settings that were traced, by method; None for the formula."""
    profile: DeviceProfile | None = None
    """How the card was measured; None for the default of each card's generation."""

    @property
    def smallest_card(self) -> GpuSpec:
        """The card with the least memory: the verdict is about it."""
        return min(self.cards, key=lambda card: card.memory_bytes)

    @property
    def batch_per_card(self) -> int:
        """Rows of an optimizer step that each card does."""
        return self.workload.batch_size // self.placement.gpus

    def estimate(self, recipe: Recipe) -> Estimate:
        """Costs of `recipe` on the smallest card."""
        return self.estimate_on(self.smallest_card, recipe)

    def estimate_on(self, card: GpuSpec, recipe: Recipe) -> Estimate:
        """Costs of `recipe` where all cards are like `card`."""
        return self.estimator(self.model, recipe, self.workload, card, self.placement, self.profile)


class Outcome(NamedTuple):
    """The best recipe of a method, and whether it fits on the smallest card."""

    estimate: Estimate
    verdict: Verdict
    largest: Mapping[bool, int] = {}
    """Largest micro-batch that fits, without (False) and with (True) checkpointing; 0 when none does."""


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
        "target_modules": default_targets(job.model),
    }
    return build_recipe(method, job.question.recipe_fields, preset, defaults)


def micro_batch_options(job: Job) -> tuple[int, ...]:
    """Micro-batches that divide a card's part of the batch, ascending; only the fixed one when it is fixed."""
    if job.question.micro_batch is not None:
        return (job.question.micro_batch,)
    batch = job.batch_per_card
    small = [n for n in range(1, int(batch**0.5) + 1) if batch % n == 0]
    return tuple(sorted({*small, *(batch // n for n in small)}))


def best_outcome(
    job: Job, method: Method, hints: Mapping[bool, int] | None = None, plain: Outcome | None = None
) -> Outcome:
    """The fastest recipe of `method` that fits, or the smallest one when none does.

    Two arguments save estimates and never change the result. `hints`, the `largest` of any other outcome, says where
    to start. `plain`, the outcome of the same method without DoRA, says where to stop: DoRA needs more memory.
    """
    if not same_layers(job.model):
        plain = None
    outcome = _best_at_rank(job, method, hints or {}, plain.largest if plain else {})
    if outcome.verdict != "fits" and method != "full" and job.question.rank is None and job.rank > DEFAULT_RANK:
        bounds = plain.largest if plain and plain.estimate.recipe.rank == DEFAULT_RANK else {}
        return _best_at_rank(job._replace(rank=DEFAULT_RANK), method, hints or {}, bounds)
    return outcome


def _ways(job: Job, method: Method, hints: Mapping[bool, int]) -> tuple[bool, ...]:
    """The checkpointing settings that are open, the one that is more likely to fit first."""
    preset = job.preset.get(method, {})
    asked = job.question.gradient_checkpointing
    fixed = preset.get("gradient_checkpointing") if asked is None else asked
    if isinstance(fixed, bool):  # neither may say
        return (fixed,)
    if job.traced is not None and len(job.traced[method]) == 1:
        return job.traced[method]
    if job.smallest:
        return (True,)
    return (True, False) if hints.get(False, 1) == 0 else (False, True)


def _best_at_rank(job: Job, method: Method, hints: Mapping[bool, int], bounds: Mapping[bool, int]) -> Outcome:
    """The best outcome with `job.rank` where the rank is open; no micro-batch beyond `bounds` is tried."""
    start = first_recipe(job, method)
    options = micro_batch_options(job)[: 1 if job.smallest else None]
    memory_bytes = job.smallest_card.memory_bytes
    tried: dict[tuple[bool, int], Estimate] = {}
    largest: dict[bool, int] = {}

    def fits(checkpointing: bool, index: int) -> bool:
        if (checkpointing, index) not in tried:
            micro_batch = options[index]
            tried[checkpointing, index] = job.estimate(
                start.model_copy(
                    update={
                        "gradient_checkpointing": checkpointing,
                        "micro_batch": micro_batch,
                        "gradient_accumulation": job.batch_per_card // micro_batch,
                    }
                )
            )
        return verdict_of(tried[checkpointing, index], memory_bytes) == "fits"

    ways = _ways(job, method, hints)
    for way in ways:
        count = sum(option <= bounds.get(way, option) for option in options)
        if largest.get(True) == 0:
            count = 0  # what does not fit with checkpointing does not fit without
        near = sum(option <= hints.get(way, 1) for option in options) - 1
        last = last_that_fits(count, partial(fits, way), near) if count else -1
        largest[way] = options[last] if last >= 0 else 0
        if not way and last == len(options) - 1:
            break  # the whole batch at once: recomputing activations cannot be faster
    fitting = [key for key in tried if fits(*key)]
    if fitting:
        return Outcome(_fastest([tried[key] for key in fitting]), "fits", largest)
    fits(True in ways, 0)  # the smallest of all, if bounds kept it from being tried
    smallest = min(tried.values(), key=lambda one: one.memory.needed_bytes.likely)
    return Outcome(smallest, verdict_of(smallest, memory_bytes), largest)


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


def _fastest(estimates: Sequence[Estimate]) -> Estimate:
    """The smallest within 1 % of the shortest time; without known times, the least recomputation first."""
    timed = [(one.time.total_s.likely, one) for one in estimates if one.time is not None]
    if not timed:
        return max(estimates, key=lambda one: (not one.recipe.gradient_checkpointing, one.recipe.micro_batch))
    limit = min(total for total, _ in timed) * _TIE
    return min((one for total, one in timed if total <= limit), key=lambda one: one.memory.needed_bytes.high)


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
