"""The nouns of an answer, frozen: what `advise()` returns and `advise --json` prints.

Advice            the whole answer
Recommendation    the method to use, the rule that says so, reasons and warnings
Candidate         one method with its best recipe, its verdict and its costs
Reason            one sentence with the rule it comes from and its source
TrainerChoice     the training stack that was assumed, and the knobs that it set
DataFile          the user's data file, as a training script has to read it
"""

from __future__ import annotations

from typing import Annotated, Literal

from advisor.errors import UnknownName
from advisor.frozen import Frozen, Range
from advisor.interval import Interval
from advisor.specs import (
    Evidence,
    MemoryEstimate,
    Method,
    Model,
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


class Candidate(Frozen):
    """One method with the best recipe found for it."""

    method: Method
    recipe: Recipe
    verdict: Verdict  # fits: even the high bound does; tight: only the likely value does
    memory: MemoryEstimate
    time: TimeEstimate | None  # over all cards; null when no card's speed is known
    evidence: Evidence
    trainable_parameters: int
    cost: Interval | None = None  # of the whole job on all cards; null without --price-per-hour or times
    fastest_card: str = ""  # of several cards: where time is lowest
    slowest_card: str = ""  # of several cards: where time is highest
    why: str = ""  # how it compares, in a few words


class Recommendation(Frozen):
    """The method to use."""

    method: Method
    rank: Annotated[int, Range(0)]  # 0 for full fine-tuning, which has no adapters
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
    sharding: Sharding


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


class Advice(Frozen):
    """The whole answer."""

    schema_version: Literal[1] = 1
    model: Model
    model_id: str  # what from_pretrained loads: a Hub id, or the path that was asked for
    parameters: int
    gpu: GpuChoice
    workload: Workload
    data_file: DataFile | None = None  # null without --data
    priority: Priority
    trainer: TrainerChoice
    fixed: tuple[str, ...]  # knobs that the question fixed
    chosen: tuple[str, ...]  # knobs that neither the question nor the trainer set for every method in question
    recommendation: Recommendation | None  # null when nothing fits
    candidates: tuple[Candidate, ...]
    alternatives: tuple[Reason, ...]  # what would fit, when nothing does
    notes: tuple[Reason, ...]  # assumptions behind the answer

    def candidate(self, method: Method) -> Candidate:
        """The row of `method`. Raises UnknownName for a method that does not exist or that the question left out."""
        for row in self.candidates:
            if row.method == method:
                return row
        known = [row.method for row in self.candidates]
        raise UnknownName("candidate", str(method), known, f"this answer has {', '.join(known)}")
