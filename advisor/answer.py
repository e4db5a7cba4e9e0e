"""The nouns of an answer, frozen: what `advise()` returns and `advise --json` prints.

Advice            the whole answer
Recommendation    the method to use, the rule that says so, reasons and warnings
Plan              a recipe with its verdict and its costs
CardTime          how long a plan takes on one of several cards
Spread            the recommended method on several cards another way
Candidate         one method with its best plan
Change            a change of the question, with the plan that it leads to
Simulation        the recommended plan's job, replayed through the allocator
Reason            one sentence with the rule it comes from and its source
TowerUse          what the vision tower of a model that sees takes
TrainerChoice     the training stack that was assumed, and the knobs that it set
DataFile          the user's data file, as a training script has to read it
DataSummary       how long its rows are, and what the job makes of them
"""

from __future__ import annotations

from typing import Annotated, Literal

from advisor.errors import UnknownName
from advisor.frozen import Frozen, Range
from advisor.interval import Interval
from advisor.notebooks import Shown
from advisor.specs import (
    Evidence,
    MemoryEstimate,
    Method,
    Model,
    Placement,
    Priority,
    Recipe,
    Sharding,
    TimeEstimate,
    Trainer,
    Workload,
)

Verdict = Literal["fits", "tight", "does_not_fit"]
DataFormat = Literal["jsonl", "json", "csv", "parquet", "text"]
DataForm = Literal["text", "messages", "prompt_completion", "alpaca", "sharegpt"]


class Reason(Frozen):
    """One sentence about this very job, the rule that says it, and where its claim comes from."""

    code: str
    text: str
    source: str


class CardTime(Frozen):
    """How long a plan takes on one of several cards."""

    card: str
    total_s: Interval


class Plan(Frozen):
    """One way to run the job, with what it costs."""

    recipe: Recipe
    verdict: Verdict  # fits: even the high bound does; tight: only the likely value does
    memory: MemoryEstimate
    time: TimeEstimate | None  # over all cards; null when no card's speed is known
    evidence: Evidence
    trainable_parameters: int
    placement: Placement | None = None  # how several cards share the job; null for one
    cost: Interval | None = None  # of the whole job on all cards; null without --price-per-hour or times
    fastest_card: str = ""  # of several cards: where time is lowest
    slowest_card: str = ""  # of several cards: where time is highest
    card_times: tuple[CardTime, ...] = ()  # recommended plan: on the fastest, median and slowest card

    @property
    def sharding(self) -> Sharding:
        """The engine that spreads it over several cards; 'none' for one."""
        return "none" if self.placement is None else self.placement.effective_sharding


class Spread(Frozen):
    """The recommended method's best plan with another engine, or on another number of cards; the step's rows stay."""

    gpus: int
    plan: Plan  # its placement says how; null for one card

    @property
    def engine(self) -> Sharding:
        """What spreads it."""
        return self.plan.sharding


class Comparison(Frozen):
    """A method beside the recommended one, both by the recommended recipe: only the method differs."""

    memory_bytes: float  # likely need less that of the recommended method
    time_ratio: float | None  # likely time over that of the recommended method; null without times
    trainable_parameters: int


class Candidate(Plan):
    """One method with the best plan found for it."""

    method: Method
    least: Plan  # the plan that needs the least memory, by its high bound
    compared: Comparison | None = None  # null for the recommended method and for what does not fit
    why: str = ""  # how it compares, in a few words


class Change(Reason):
    """One change of the question, estimated: what it is, the flags that make it, and the plan with it."""

    flags: tuple[str, ...] = ()  # added to the question's; () for a sentence without an estimate
    knobs: tuple[str, ...] = ()  # names of the knobs that change
    changes_training: bool = False  # the model that comes out is not the same: other layers, rows, numbers
    model: str = ""  # where it is not the question's
    card: str = ""  # where it is not the question's
    workload: Workload | None = None  # of the plan
    plan: Plan | None = None
    memory_bytes: float = 0.0  # likely need less that of the recommended plan; 0 when there is none
    time_s: float | None = None  # likely time less that of the recommended plan; null without one or without times


class Simulation(Frozen):
    """A replay of the recommended plan's own job through PyTorch's allocator; the plan's memory stands on it."""

    steps: int  # optimizer steps that were replayed
    seed: int  # of the order of the lengths
    orders: int  # how many orders: one where all micro-batches are alike
    reserved_bytes: Interval  # torch.cuda.max_memory_reserved where there is room
    needed_bytes: Interval  # smallest capacity at which the job never fails, plus CUDA context
    out_of_memory_chance: float  # that the job fails on the card, 0 to 1
    remedies: tuple[Change, ...] = ()  # what makes the allocator hold less, replayed as well


class Recommendation(Frozen):
    """The method to use."""

    method: Method
    rank: Annotated[int, Range(0)]  # 0 for full fine-tuning, which has no adapters
    learning_rate: float  # the peak to start from, for AdamW
    rule: str
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]


class GpuChoice(Frozen):
    """What the question's GPU stands for."""

    asked: str
    cards: tuple[str, ...]  # one name, or those of all cards of a bare size
    memory_bytes: int  # the smallest that the driver reports among the cards
    bf16: bool  # whether they compute in bf16; if not, mixed precision is fp16
    gpus: int
    sharding: Sharding  # of the recommended plan; of the first where nothing fits

    @property
    def label(self) -> str:
        """'2 x NVIDIA L4', or what was asked for where that means several cards."""
        name = self.cards[0] if len(self.cards) == 1 else self.asked
        return f"{self.gpus} x {name}" if self.gpus > 1 else name


class TrainerChoice(Frozen):
    """The training stack that the answer assumes; `advise trainers NAME` says where it sets what."""

    name: Trainer
    version: str
    traced: bool  # its own training step was run and compared with the estimate
    knobs: tuple[str, ...]  # what it set because the question did not


class DataFile(Frozen):
    """A data file, as a training script has to read it.

    By form, the columns that training reads: text (one column of text); messages (one list of {role, content});
    prompt_completion (two columns, of text or of messages); alpaca (instruction, output and, if there is one, input
    between them); sharegpt (one list of {from, value}).
    """

    path: str = "train.jsonl"
    format: DataFormat = "jsonl"
    form: DataForm = "text"
    columns: tuple[str, ...] = ("text",)  # names in the file; empty for plain text, whose lines are rows


class DataSummary(Frozen):
    """How long the rows of a data file are in tokens, and what the job makes of them.

    Percentiles and histogram are of the likely lengths; rows of edges[i] <= length < edges[i + 1] are rows[i].
    """

    rows: int  # that training can read
    bad_lines: int  # that it cannot
    first_bad_lines: tuple[int, ...]  # where these are, counted from 1; of Parquet, rows
    counted_by: str  # by which tokenizer, or that the tokens are estimated, and why
    mean_tokens: Interval
    longest_tokens: Interval
    percentiles: tuple[tuple[float, int], ...]  # (per cent of the rows, tokens that they do not exceed)
    histogram_edges: tuple[int, ...]
    histogram_rows: tuple[int, ...]
    seq_len: int  # the limit at which rows are cut
    rows_cut: int
    tokens_cut: float  # their share of all tokens
    micro_batch: int  # of the recommended recipe
    padding: tuple[tuple[int, float], ...]  # (micro-batch, share of padding in its tokens)
    packed_rows: int  # rows of seq_len that hold all, packed best-fit
    packed_padding: float  # share of their tokens
    real_tokens: int  # of one epoch, after cutting
    padded_tokens: int  # of one epoch, with the padding of the job: of its micro-batches, or packed if it packs
    steps: int  # of the whole job


class TowerUse(Frozen):
    """What the vision tower and the projector of a model that sees take."""

    parameters: int  # among the model's
    weight_bytes: int  # by the recommended recipe, or the first row's; loaded whether rows have images or not
    image_tokens: int  # of a row; 0 for rows of text


class Advice(Frozen, Shown):
    """The whole answer."""

    schema_version: Literal[1] = 1
    model: Model
    model_id: str  # what from_pretrained loads: a Hub id, or the path that was asked for
    parameters: int
    tower: TowerUse | None = None  # null for a model that reads text alone, or whose tower is not known
    gpu: GpuChoice
    workload: Workload
    data_file: DataFile | None = None  # null without --data
    data: DataSummary | None = None  # null without --data
    priority: Priority
    trainer: TrainerChoice
    fixed: tuple[str, ...]  # knobs that the question fixed
    chosen: tuple[str, ...]  # knobs that neither the question nor the trainer set for every method in question
    recommendation: Recommendation | None  # null when nothing fits
    candidates: tuple[Candidate, ...]
    alternatives: tuple[Change, ...]  # what would fit, when nothing does, or the recommended plan only just
    engines: tuple[Spread, ...] = ()  # several cards: the recommended method under each engine
    scaling: tuple[Spread, ...] = ()  # several cards: the recommended method on fewer and more of them
    frontier: tuple[Plan, ...] = ()  # plans of the recommended method that none beats in both memory and time
    simulation: Simulation | None = None  # null without --simulate, and when nothing fits
    prices: tuple[Change, ...] = ()  # single changes of the recommended plan, and what each brings
    notes: tuple[Reason, ...]  # assumptions behind the answer

    def candidate(self, method: Method) -> Candidate:
        """The row of `method`. Raises UnknownName for a method that does not exist or that the question left out."""
        for row in self.candidates:
            if row.method == method:
                return row
        known = [row.method for row in self.candidates]
        raise UnknownName("candidate", str(method), known, f"this answer has {', '.join(known)}")
