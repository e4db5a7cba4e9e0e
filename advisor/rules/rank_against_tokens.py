"""What the rank can hold against what the data say.

A network stores about 2 bits a parameter (Allen-Zhu and Li, a swept study on made-up facts), and text costs a language
model about 1 bit a token, so an adapter should have at least half as many parameters as the data have tokens. Above
that, a swept study found LoRA as good as full fine-tuning at any rank; below it, LoRA learned less from each step, with
no sharp edge. Both figures are orders of magnitude, so the rule speaks only when the data hold twice the capacity, or
when a rank above 16 is ten times more than they need. Later epochs add nothing to learn; tokens that are not scored,
such as prompts, are counted although they add nothing either. The rules about ranks 16 and 64 stay.
"""

from __future__ import annotations

from math import ceil, log2

from advisor.answer import Candidate, Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.lora_for_speed import DEFAULT_RANK
from advisor.rules.wording import extra_gib
from advisor.units import GIB, format_count

CODE = "ADV013"
SOURCE = "Schulman et al. 2025, https://thinkingmachines.ai/blog/lora/; Allen-Zhu and Li 2024, arXiv:2404.05405"
BITS_PER_PARAMETER = 2.0
BITS_PER_TOKEN = 1.0
SHORT = 2.0
"""The rule speaks when the data hold this many times what the adapters can."""
AMPLE = 10.0
"""The rule speaks when rank 16 could hold this many times the data, and the rank is higher."""
HIGHEST_RANK = 256
"""The highest rank that is proposed: beyond it few runs have been published."""


def check(context: Context) -> Finding | None:
    """Speaks up when the capacity of the adapters is far from the data's."""
    row = context.shown
    if row is None or not row.recipe.has_lora:
        return None
    bits = context.workload.examples * context.workload.mean_seq_len * BITS_PER_TOKEN
    capacity = row.trainable_parameters * BITS_PER_PARAMETER
    data = f"the data's {format_count(bits / BITS_PER_TOKEN)} tokens (about {BITS_PER_TOKEN:g} bit each)"
    if bits > SHORT * capacity:
        text = (
            f"Rank {row.recipe.rank} can hold about {format_count(capacity)} bits ({BITS_PER_PARAMETER:g} a "
            f"parameter), less than {data}; beyond its capacity LoRA learns less efficiently (swept study). "
            f"{_higher(context, row, bits)}"
        )
    elif row.recipe.rank > DEFAULT_RANK and capacity * DEFAULT_RANK / row.recipe.rank >= AMPLE * bits:
        saved = -_extra(context, row, DEFAULT_RANK)
        times = capacity * DEFAULT_RANK / row.recipe.rank / bits
        text = (
            f"Rank {DEFAULT_RANK} would do: it can hold {times:,.0f} times {data}, and saves "
            f"{extra_gib(saved)} (swept study)."
        )
    else:
        return None
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


def _higher(context: Context, row: Candidate, bits: float) -> str:
    """The power of two that would hold the data, with its price."""
    rank = 2 ** ceil(log2(row.recipe.rank * bits / (row.trainable_parameters * BITS_PER_PARAMETER)))
    if rank > HIGHEST_RANK:
        all_of_it = (
            "full fine-tuning would" if context.parameters * BITS_PER_PARAMETER >= bits else "nor do all weights"
        )
        return f"No rank up to {HIGHEST_RANK} holds them; {all_of_it}."
    extra = _extra(context, row, rank)
    fits = row.memory.needed_bytes.high + extra <= context.memory_bytes
    price = f"for {extra_gib(extra)} more" if extra >= 0.005 * GIB else "for no more memory"
    return f"--rank {rank} would hold them {price if fits else f'{price}, which does not fit'}."


def _extra(context: Context, row: Candidate, rank: int) -> float:
    """Bytes that another rank needs beyond the row's."""
    other = context.beside(row, row.recipe.model_copy(update={"rank": rank}))
    return other.memory.needed_bytes.likely - row.memory.needed_bytes.likely


RULE = Rule(CODE, "remarks", __doc__, (SOURCE,), check)
