"""Sentences with this job's own numbers that several rules share."""

from __future__ import annotations

from advisor.answer import Candidate, DataSummary, Plan
from advisor.checkpoints import STORES
from advisor.interval import Interval
from advisor.parameters.targets import adapts_experts, fuses_experts
from advisor.rules.context import Context
from advisor.rules.premise import plain
from advisor.specs import Method, ModelSpec, Recipe
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


def extra_gib(size_bytes: float) -> str:
    """A difference of bytes in GiB, with two decimals below 10 GiB."""
    return f"{size_bytes / GIB:,.2f} GiB" if abs(size_bytes) < 10 * GIB else f"{size_bytes / GIB:,.0f} GiB"


def signed_gib(size_bytes: float) -> str:
    """'-6.1 GiB', '+0.3 GiB', 'same memory'."""
    gib = size_bytes / GIB
    if abs(gib) < 0.005:
        return "same memory"
    return f"{gib:+,.0f} GiB" if abs(gib) >= 100 else f"{gib:+.1f} GiB" if abs(gib) >= 1 else f"{gib:+.2f} GiB"


def signed_time(seconds: float) -> str:
    """'+24 min', '-1.2 h', 'same time'."""
    if abs(seconds) < 0.5:
        return "same time"
    return ("+" if seconds > 0 else "-") + format_seconds(abs(seconds))


def needs(row: Plan) -> str:
    """'15.2 GiB (at most 16.0)': the likely need of a candidate and its high bound."""
    needed = row.memory.needed_bytes
    return f"{format_gib(needed.likely)} GiB (at most {format_gib(needed.high)})"


def machine_text(row: Plan) -> str:
    """'93.1 GiB (at most 125) of 128': what a machine with several cards needs of its own memory; '' for one card."""
    taken, placement = row.memory.machine_bytes, row.placement
    if taken is None or placement is None:
        return ""
    given = f" of {placement.host_memory_gb:,g}" if placement.host_memory_gb else ""
    return f"{format_gib(taken.likely)} GiB (at most {format_gib(taken.high)}){given}"


def fits_text(row: Plan, memory_bytes: int) -> str:
    """'fits', 'does not fit', 'only just fits', or 'likely fits' where there is room but not all is known."""
    if row.verdict != "tight":
        return "fits" if row.verdict == "fits" else "does not fit"
    return "likely fits" if row.memory.needed_bytes.high <= memory_bytes else "only just fits"


def how(recipe: Recipe) -> str:
    """'micro-batch 2 with checkpointing'; with expandable segments too where the recipe has them."""
    text = f"micro-batch {recipe.micro_batch} with{'' if recipe.gradient_checkpointing else 'out'} checkpointing"
    segments = " and expandable segments" if recipe.gradient_checkpointing else " but with expandable segments"
    return text + segments if recipe.expandable_segments else text


def stored_form(recipe: Recipe) -> str:
    """The stored form of a quantized base: 'nf4', 'FP8', 'GPTQ with 4 bits'."""
    title = STORES[recipe.quant].title
    return f"{title} with {recipe.quant_bits} bits" if recipe.quant in ("gptq", "awq", "hqq") else title


def where(context: Context) -> str:
    """'here', or what the time of several cards stands for."""
    count = len(context.cards)
    return "here" if count == 1 else f"here, midpoint of {count} cards"


def extra_bytes(context: Context, row: Candidate, without: dict[str, object]) -> float:
    """Bytes that `row` needs beyond the same recipe with the fields of `without` replaced, spread as it (likely)."""
    other = context.beside(row, row.recipe.model_copy(update=without))
    return row.memory.needed_bytes.likely - other.memory.needed_bytes.likely


def default_of(context: Context) -> str:
    """The trainer's default, by name: "trl's default"."""
    name = context.trainer.name
    return f"{name}'{'' if name.endswith('s') else 's'} default"


def on_layers(context: Context, recipe: Recipe) -> str:
    """'on the attention only', 'on all linear layers', 'on q_proj, v_proj'."""
    names, m = recipe.target_modules, context.model
    if names == ("attention",):
        return "on the attention only"
    if names != ("all-linear",):
        return f"on {', '.join(names)}"
    if not isinstance(m, ModelSpec) or not fuses_experts(m):
        return "on all linear layers"
    reached = adapts_experts(m, names, recipe.is_dora, recipe.dropout)
    return f"on all linear layers {'and' if reached else 'but'} the experts"


def extra_dora_bytes(context: Context, row: Candidate) -> float:
    """Bytes that a DoRA row needs beyond the same recipe without DoRA."""
    other = context.beside(row, plain(context.model, row.recipe))
    return row.memory.needed_bytes.likely - other.memory.needed_bytes.likely


def dora_cost(context: Context) -> str:
    """What DoRA costs compared with LoRA in this job, as a clause; '' when one of the two has no row.

    Hours compare the best recipe of each; GiB compare both at DoRA's recipe.
    """
    dora, lora = context.candidates.get("dora"), context.candidates.get("lora")
    if dora is None or lora is None:
        return ""
    extra_memory = extra_dora_bytes(context, dora)
    memory = extra_gib(extra_memory) if extra_memory >= 0.005 * GIB else "no memory"
    if dora.time is None or lora.time is None:
        return f"DoRA adds {memory} to LoRA at the same micro-batch"
    base, extra = lora.time.total_s.likely, dora.time.total_s.likely - lora.time.total_s.likely
    layers, its = (on_layers(context, row.recipe) for row in (dora, lora))
    job = f"LoRA's {format_seconds(base)}{'' if layers == its else f' {its}'} {where(context)}"
    if extra < 0:
        return f"DoRA saves {format_seconds(-extra)} of {job}, and adds {memory} at the same micro-batch"
    return f"DoRA adds {format_seconds(extra)} to {job}, and {memory} at the same micro-batch"


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
