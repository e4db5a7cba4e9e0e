"""The rules, in the order in which they are evaluated: the first recommending rule that answers decides."""

from __future__ import annotations

from advisor.errors import UnknownName
from advisor.rules import (
    alpha_at_high_rank,
    base_in_fp32,
    beyond_context,
    chunked_loss,
    dora_dropout,
    dora_evidence,
    dora_for_small_data,
    dtypes_of_full,
    full_fits_too,
    half_precision,
    kernels_declined,
    learning_rate,
    left_in_16_bits,
    lora_for_medium_data,
    lora_for_speed,
    math_attention,
    memory_first,
    method_asked_for,
    near_threshold,
    no_effect,
    nothing_fits,
    qlora_below_16_bits,
    qlora_saves_nothing,
    rank_against_tokens,
    several_cards,
    tight_memory,
    unlike_adapters,
    what_is_left,
)
from advisor.rules.context import Rule

RULES: tuple[Rule, ...] = (
    method_asked_for.RULE,
    memory_first.RULE,
    qlora_below_16_bits.RULE,
    lora_for_speed.RULE,
    dora_for_small_data.RULE,
    lora_for_medium_data.RULE,
    what_is_left.RULE,
    nothing_fits.RULE,
    full_fits_too.RULE,
    near_threshold.RULE,
    dora_evidence.RULE,
    dtypes_of_full.RULE,
    rank_against_tokens.RULE,
    alpha_at_high_rank.RULE,
    learning_rate.RULE,
    tight_memory.RULE,
    dora_dropout.RULE,
    qlora_saves_nothing.RULE,
    base_in_fp32.RULE,
    no_effect.RULE,
    beyond_context.RULE,
    half_precision.RULE,
    several_cards.RULE,
    chunked_loss.RULE,
    unlike_adapters.RULE,
    left_in_16_bits.RULE,
    math_attention.RULE,
    kernels_declined.RULE,
)


def find_rule(code: str) -> Rule:
    """The rule with this code, in any case. Raises UnknownName."""
    for rule in RULES:
        if rule.code == code.strip().upper():
            return rule
    raise UnknownName("rule", code, [rule.code for rule in RULES], "see: advise rules")
