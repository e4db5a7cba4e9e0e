"""The sentences of an answer: what it assumes and leaves out, and how its rows compare."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.answer import Candidate, DataSummary, Reason, Recommendation
from advisor.catalog.trainers import Preset
from advisor.knobs import Question
from advisor.rules.context import Context
from advisor.rules.wording import FORMULA, cut_text, tokens_text
from advisor.specs import GpuSpec, Method, Model, TracedModel, Workload
from advisor.units import GIB, format_gib

ASSUMPTION = "assumption"
TRACE = "trace"
DATA = "data"


def trainer_notes(preset: Preset) -> list[Reason]:
    """A note that the trainer's own step was not traced, so that the estimate is of transformers' step."""
    if preset.traced:
        return []
    text = (
        f"We have not traced {preset.name}'s own step; this estimates the transformers step with {preset.name}'s "
        f"settings. `advise trainers {preset.name}` lists the differences."
    )
    return [Reason(code=ASSUMPTION, text=text, source="profiles/trainers")]


def traced_notes(model: Model, left_out: Sequence[Method]) -> list[Reason]:
    """A note that the answer comes from a trace: what was traced, and which methods are left out."""
    if not isinstance(model, TracedModel):
        return []
    texts = [
        f"{model.name} ({model.architecture}, {model.kind}) is not known to the formula: memory comes from a trace "
        f"of its own training step on a CPU ({model.traced_with}), times from its FLOP and memory traffic."
    ]
    if left_out:
        texts.append(
            f"Left out because not traced with these knobs: {', '.join(left_out)}; `calibrate --dry-run --model "
            f"{model.source} --method {','.join(left_out)}` adds those that can run."
        )
    return [Reason(code=TRACE, text=text, source="calibrate --dry-run") for text in texts]


def assumptions(question: Question, workload: Workload) -> list[Reason]:
    """What was assumed about the data because it was neither stated nor read from a file."""
    texts = []
    if question.data is None:
        if question.examples is None:
            texts.append(f"Assumed {workload.examples:,} examples; give --examples or --data.")
        if question.seq_len is None or question.mean_seq_len is None:
            texts.append(
                f"Assumed rows of {workload.mean_seq_len:,} tokens on average and {workload.seq_len:,} at most; "
                "give --mean-seq-len and --seq-len, or --data."
            )
    return [Reason(code=ASSUMPTION, text=text, source=FORMULA) for text in texts]


def data_notes(question: Question, data: DataSummary | None) -> list[Reason]:
    """What the data file holds, who counted it, and what the job cuts off and pads."""
    if data is None:
        return []
    rows = f"{data.rows:,} rows" if question.examples is None else f"{question.examples:,} of {data.rows:,} rows"
    skipped = f", {data.bad_lines:,} bad line{'s' if data.bad_lines > 1 else ''} skipped" if data.bad_lines else ""
    cut = cut_text(data)
    padded = f"{dict(data.padding)[data.micro_batch]:.0%} padding in micro-batches of {data.micro_batch:,}"
    if question.packing:
        padded = f"packed into {data.packed_rows:,} rows with {data.packed_padding:.1%} padding"
    texts = [
        f"--data: {rows}{skipped}, mean {tokens_text(data.mean_tokens)}, longest {tokens_text(data.longest_tokens)} "
        f"tokens, {data.counted_by}.",
        f"{cut[:1].upper()}{cut[1:]}; {padded}. `advise data FILE` shows the lengths.",
    ]
    return [Reason(code=DATA, text=text, source=FORMULA) for text in texts]


def card_notes(cards: Sequence[GpuSpec], usable: Sequence[GpuSpec], stand_ins: Sequence[GpuSpec]) -> list[Reason]:
    """Notes on the cards of a bare size that are left out of the answer, or whose speed is unknown."""
    texts = []
    left_out = [card.name for card in cards if card not in usable]
    if left_out:
        texts.append(f"Excluded because they lack bf16: {', '.join(left_out)}. Pass one to --gpu to evaluate it.")
    unknown = [card.name for card in usable if not card.speed_known]
    if unknown:
        text = f"The speed of {', '.join(unknown)} is not known"
        if stand_ins:
            sizes = sorted(card.memory_bytes for card in stand_ins)
            text += (
                f": times are the range over {len(stand_ins)} catalog cards of {format_gib(sizes[0])} to "
                f"{format_gib(sizes[-1])} GiB; a GPU file with its bandwidth and FLOP/s narrows them"
            )
        texts.append(text + ".")
    return [Reason(code=ASSUMPTION, text=text, source="profiles/gpus") for text in texts]


def with_why(row: Candidate, context: Context, recommendation: Recommendation | None) -> Candidate:
    """The row, with its comparison to the recommended one filled in."""
    return row.model_copy(update={"why": _why(row, context, recommendation)})


def _why(row: Candidate, context: Context, recommendation: Recommendation | None) -> str:
    """How the row compares: with the card when it does not fit, with LoRA (or the recommended row) when it does."""
    card = format_gib(context.memory_bytes)
    if row.verdict == "does_not_fit":
        return f"{format_gib(row.memory.needed_bytes.likely)} of {card} GiB"
    if recommendation is not None and row.method == recommendation.method:
        return f"recommended by {recommendation.rule}"
    if row.verdict == "tight":
        return f"up to {format_gib(row.memory.needed_bytes.high)} of {card} GiB"
    if recommendation is None:
        return ""
    base = context.candidates[recommendation.method]
    memory = (row.memory.needed_bytes.likely - base.memory.needed_bytes.likely) / GIB
    text = f"{memory:+.1f} GiB" if abs(memory) >= 0.05 else "same memory"
    if row.time is not None and base.time is not None and base.time.total_s.likely > 0:
        text += f", {row.time.total_s.likely / base.time.total_s.likely:.2f}x time"
    return text
