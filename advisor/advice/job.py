"""What a search is about: the job with what the question fixed, the recipe it starts from, and what fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from advisor.advice.workload import workload_of
from advisor.answer import Verdict
from advisor.catalog.trainers import DEFAULT_TRAINER, Preset, find_trainer
from advisor.costs.device import DeviceProfile
from advisor.interval import Interval
from advisor.knobs import Question
from advisor.lengths import RowLengths
from advisor.parameters.modules import head_linear
from advisor.parameters.replacing import targets_by_default
from advisor.recipes import build_recipe, flag, stored_fields
from advisor.rules.lora_for_speed import DEFAULT_RANK
from advisor.specs import (
    ADAPTER_METHODS,
    METHODS,
    Estimate,
    GpuSpec,
    MemoryEstimate,
    Method,
    Model,
    ModelSpec,
    Placement,
    Recipe,
    TimeEstimate,
    Workload,
)
from advisor.units import GIB

if TYPE_CHECKING:
    from advisor.dataset.summary import Measured

Estimator = Callable[[Model, Recipe, Workload, GpuSpec, Placement, DeviceProfile | None], Estimate]
Timer = Callable[[Model, Recipe, Workload, GpuSpec, Placement, DeviceProfile | None], TimeEstimate | None]

WORSE: tuple[Verdict, ...] = ("fits", "tight", "does_not_fit")
WITHOUT_BF16 = ("Kepler", "Maxwell", "Pascal", "Volta", "Turing")
DEFAULT_EVAL_BATCH = 8
"""per_device_eval_batch_size of transformers 5.23's TrainingArguments."""


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
    timer: Timer | None = None
    """What says the time of an estimate alone, faster; None asks `estimator`."""
    sizer: Estimator | None = None
    """What estimates all but the time, faster; None asks `estimator`."""
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
    methods: tuple[Method, ...] = METHODS
    """What can be done with the checkpoint."""
    data: Measured | None = None
    """The rows of the data file, if there is one."""
    placements: Mapping[Method, Placement] = {}
    """How each method is spread over the cards, where that was chosen; `placement` holds for the others."""

    @property
    def smallest_card(self) -> GpuSpec:
        """The card with the least memory: the verdict is about it."""
        return min(self.cards, key=lambda card: card.memory_bytes)

    @property
    def default_targets(self) -> tuple[str, ...]:
        """Target modules where the question leaves them open."""
        return self.targets or targets_by_default(self.model, self.question.variant or "plain")

    @property
    def trainer(self) -> Preset:
        """What the trainer does on so many cards."""
        return find_trainer(self.question.trainer or DEFAULT_TRAINER, self.placement.gpus)

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

    def placement_of(self, method: Method) -> Placement:
        """How a method is spread over the cards."""
        return self.placements.get(method, self.placement)

    def placed(self, one: Estimate) -> Job:
        """The same job with all methods spread as an estimate of it was."""
        return self if one.placement is None else self._replace(placement=one.placement, placements={})

    def estimate(self, recipe: Recipe, spread_as: Placement | None = None) -> Estimate:
        """Costs of `recipe` on the smallest card, spread over the cards as its method is, or as another plan is."""
        placement = self.placement_of(recipe.method) if spread_as is None else spread_as
        return self.estimator(self.model, recipe, self.workload, self.smallest_card, placement, self.profile)

    def sized(self, recipe: Recipe) -> Estimate:
        """The same, where the memory is looked at first: its time may be None until it is `timed`."""
        placement, estimator = self.placement_of(recipe.method), self.sizer or self.estimator
        return estimator(self.model, recipe, self.workload, self.smallest_card, placement, self.profile)

    def timed(self, one: Estimate) -> Estimate:
        """One of `sized` with its time, if that is known."""
        if self.sizer is None or one.time is not None:
            return one
        time = self.time_on(self.smallest_card, one.recipe)
        return one if time is None else one.model_copy(update={"time": time})

    def time_on(self, card: GpuSpec, recipe: Recipe) -> TimeEstimate | None:
        """Time of `recipe` where all cards are like `card`; None where it is not known."""
        asked = self.model, recipe, self.workload, card, self.placement_of(recipe.method), self.profile
        return self.estimator(*asked).time if self.timer is None else self.timer(*asked)


def has_bf16(card: GpuSpec) -> bool:
    """Whether the card computes in bf16; an unknown card is assumed to be recent."""
    return card.bf16_flop_per_s > 0 or card.generation not in WITHOUT_BF16


def verdict_of(estimate: Estimate, memory_bytes: int) -> Verdict:
    """The verdict on what an estimate says must fit; nothing surely fits in which something runs that is not known."""
    fits = fit_of(estimate.memory.needed_bytes, memory_bytes), host_fit(estimate.memory, estimate.placement)
    found = max(fits, key=WORSE.index)
    return "tight" if found == "fits" and estimate.evidence.unknown else found


def host_fit(memory: MemoryEstimate, placement: Placement | None) -> Verdict:
    """The same of a machine's memory, where it is given."""
    if placement is None or memory.machine_bytes is None or not placement.host_memory_gb:
        return "fits"
    return fit_of(memory.machine_bytes, int(placement.host_memory_gb * GIB))


def fit_of(needed: Interval, memory_bytes: int) -> Verdict:
    """fits when even the high bound does; tight when only the likely value does."""
    if needed.high <= memory_bytes:
        return "fits"
    return "tight" if needed.likely <= memory_bytes else "does_not_fit"


def head_loses_chunks(job: Job) -> bool:
    """Whether the trainer's own loss comes in chunks that would bypass an adapter of the head, and nobody asked for it.

    The adapter is one that the question asks for.
    """
    question, m = job.question, job.model
    if question.loss is not None or question.method == "full" or not isinstance(m, ModelSpec):
        return False
    head = head_linear(m).name
    named = head in (question.target_modules or ()) and head not in (question.modules_to_save or ())
    chunked = any(job.preset[one].get("loss") == "chunked" for one in question.methods if one in job.preset)
    return named and not question.trained_layers and chunked


def first_recipe(job: Job, method: Method) -> Recipe:
    """The recipe of `method` before anything is searched: what is fixed, the trainer's preset, defaults for the rest.

    A card without bf16 gets fp16; full fine-tuning then keeps fp32 weights, because torch.amp.GradScaler cannot
    unscale fp16 gradients.
    """
    half = "bfloat16" if any(has_bf16(card) for card in job.cards) else "float16"
    preset = dict(job.preset.get(method, {}))
    if half == "float16" and preset.get("base_dtype") == "bfloat16":
        del preset["base_dtype"]  # trainers, too, take fp16 on such a card
    if method in ADAPTER_METHODS and head_loses_chunks(job):
        preset["loss"] = "full"
    defaults: dict[str, object] = {
        "rank": job.rank,
        "base_dtype": "float32" if method == "full" and half == "float16" else half,
        "attention": job.model.default_attention,
        "target_modules": job.default_targets,
        "eval_batch": DEFAULT_EVAL_BATCH if job.workload.eval_examples else 0,
    }
    if job.placement.spreads_weights and method in ("qlora", "qdora"):
        preset["kbit_upcast"] = False  # trl 1.16, experimental/utils.py, prepare_peft_model: not on shards
    fixed = {**job.question.recipe_fields, **stored_fields(job.model, method)}
    return build_recipe(method, fixed, preset, defaults)
