"""Sentences with this job's own numbers that several rules share."""

from __future__ import annotations

from advisor.answer import Candidate, DataSummary
from advisor.interval import Interval
from advisor.rules.context import Context
from advisor.specs import Method, Recipe
from advisor.units import GIB, format_gib, format_seconds

DISPLAY: dict[Method, str] = {
    "full": "full fine-tuning",
    "lora": "LoRA",
    "dora": "DoRA",
    "qlora": "QLoRA",
    "qdora": "QDoRA",
}
"""Methods as people write them."""

FORMULA = "this job's own estimate"
"""Source of a sentence that only states what was computed."""


def hours(seconds: float) -> str:
    """Hours with two significant digits, '1.4 h', '130 h'; what is under six minutes in its own unit, '17 s'."""
    value = seconds / 3600
    if value < 0.1:
        return format_seconds(seconds)
    if value >= 1e6:
        return f"{value:.1e} h"
    return f"{value:,.0f} h" if value >= 10 else f"{value:.2g} h"


def extra_gib(size_bytes: float) -> str:
    """A difference of bytes in GiB, with two decimals below 10 GiB."""
    return f"{size_bytes / GIB:,.2f} GiB" if abs(size_bytes) < 10 * GIB else f"{size_bytes / GIB:,.0f} GiB"


def needs(row: Candidate) -> str:
    """'15.2 GiB (at most 16.0)': the likely need of a candidate and its high bound."""
    needed = row.memory.needed_bytes
    return f"{format_gib(needed.likely)} GiB (at most {format_gib(needed.high)})"


def how(recipe: Recipe) -> str:
    """'micro-batch 2 with checkpointing'."""
    return f"micro-batch {recipe.micro_batch} with{'' if recipe.gradient_checkpointing else 'out'} checkpointing"


def where(context: Context) -> str:
    """'here', or what the time of several cards stands for."""
    count = len(context.cards)
    return "here" if count == 1 else f"here, midpoint of {count} cards"


def extra_bytes(context: Context, row: Candidate, without: dict[str, object]) -> float:
    """Bytes that `row` needs beyond the same recipe with the fields of `without` replaced (likely values)."""
    other = context.estimate(row.recipe.model_copy(update=without))
    return row.memory.needed_bytes.likely - other.memory.needed_bytes.likely


def dora_cost(context: Context) -> str:
    """What DoRA costs compared with LoRA in this job, as a clause; '' when one of the two has no row.

    Hours compare the best recipe of each; GiB compare both at DoRA's recipe.
    """
    dora, lora = context.candidates.get("dora"), context.candidates.get("lora")
    if dora is None or lora is None:
        return ""
    extra_memory = extra_bytes(context, dora, {"method": "lora"})
    memory = extra_gib(extra_memory) if extra_memory >= 0.005 * GIB else "no memory"
    if dora.time is None or lora.time is None:
        return f"DoRA adds {memory} to LoRA at the same micro-batch"
    base, extra = lora.time.total_s.likely, dora.time.total_s.likely - lora.time.total_s.likely
    verb = "adds" if extra >= 0 else "saves"
    return (
        f"DoRA {verb} {hours(abs(extra))} {'to' if extra >= 0 else 'of'} LoRA's {hours(base)} "
        f"{where(context)}, and {memory} at the same micro-batch"
    )


def tokens_text(tokens: Interval) -> str:
    """'412', or '412 (350 to 540)' for a length that is estimated."""
    if tokens.is_exact:
        return f"{tokens.likely:,.0f}"
    return f"{tokens.likely:,.0f} ({tokens.low:,.0f} to {tokens.high:,.0f})"


def cut_text(data: DataSummary) -> str:
    """What a limit cuts off the rows of a data file, as a clause."""
    if not data.rows_cut and data.longest_tokens.high > data.seq_len:
        return (
            f"rows are cut at {data.seq_len:,} tokens, the likely length of the longest (--seq-len sets another limit)"
        )
    if not data.rows_cut:
        return f"no row is longer than {data.seq_len:,} tokens"
    rows = "1 row is" if data.rows_cut == 1 else f"{data.rows_cut:,} rows are"
    return f"{rows} cut to {data.seq_len:,} tokens, which loses {data.tokens_cut:.1%} of all tokens"
