"""The nouns of an answer, frozen: what `advise()` returns and `advise --json` prints.

Advice            the whole answer
Recommendation    the method to use, the rule that says so, reasons and warnings
Candidate         one method with its best recipe, its verdict and its costs
Reason            one sentence with the rule it comes from and its source
TrainerChoice     the training stack that was assumed, and the knobs that it set
DataFile          the user's data file, as a training script has to read it
DataSummary       how long its rows are, and what the job makes of them
"""

from __future__ import annotations

from typing import Annotated, Literal

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


class Advice(Frozen):
    """The whole answer."""

    schema_version: Literal[1] = 1
    model: Model
    model_id: str  # what from_pretrained loads: a Hub id, or the path that was asked for
    parameters: int
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
    alternatives: tuple[Reason, ...]  # what would fit, when nothing does
    notes: tuple[Reason, ...]  # assumptions behind the answer

    def candidate(self, method: Method) -> Candidate:
        """The row of `method`. KeyError when the question left it out."""
        for row in self.candidates:
            if row.method == method:
                return row
        raise KeyError(method)
