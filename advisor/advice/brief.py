"""An answer in a few hundred words of JSON, for programs that pay for every token they read."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.answer import Advice, Candidate, Reason
from advisor.frozen import Frozen
from advisor.recipes import flags_of
from advisor.units import GIB

MOST_BYTES = 3_300
"""Of the JSON text: 1,200 tokens of o200k at 2.75 bytes; answers have 2.9 to 3.3, the less the more numbers."""
_MOST_TEXTS = 3
_LONGEST_TEXT = 240


class BriefPlan(Frozen):
    """A method with its best plan, in GiB and seconds; a pair is low and high."""

    method: str
    verdict: str
    needed_gib: tuple[float, float]
    total_s: tuple[float, float] | None
    micro_batch: int
    gradient_accumulation: int
    gradient_checkpointing: bool


class Brief(Frozen):
    """What an answer says in short; `advise --json` without --brief has all of it."""

    schema_version: int = 1
    model: str
    parameters: int
    cards: str
    card_gib: float
    recommended: str | None  # null where nothing fits
    rule: str | None
    learning_rate: float | None
    plans: tuple[BriefPlan, ...]
    flags: str  # of the recommended plan: `advise` with them answers for exactly this recipe
    why: tuple[str, ...]
    warnings: tuple[str, ...]
    would_fit: tuple[str, ...]  # where nothing does
    assumed: tuple[str, ...]  # what the question left open, or how it was read
    engine: str | None  # what spreads it over several cards


def brief(answer: Advice) -> Brief:
    """The answer in short: at most 1,200 tokens."""
    chosen = answer.recommendation
    row = None if chosen is None else answer.candidate(chosen.method)
    found = Brief(
        model=answer.model_id,
        parameters=answer.parameters,
        cards=answer.gpu.label,
        card_gib=round(answer.gpu.memory_bytes / GIB, 2),
        recommended=None if chosen is None else chosen.method,
        rule=None if chosen is None else chosen.rule,
        learning_rate=None if chosen is None else chosen.learning_rate,
        plans=tuple(map(_plan, answer.candidates)),
        flags="" if row is None else " ".join(flags_of(row.recipe)),
        why=_texts(chosen.reasons if chosen else ()),
        warnings=_texts(chosen.warnings if chosen else ()),
        would_fit=_texts(answer.alternatives),
        assumed=_texts(answer.notes),
        engine=answer.gpu.sharding if answer.gpu.gpus > 1 else None,
    )
    return _shortened(found)


def _shortened(found: Brief) -> Brief:
    """Without the last sentences, those that matter least first, until it is short enough."""
    for name in ("assumed", "why", "would_fit", "warnings"):
        while len(found.model_dump_json().encode()) > MOST_BYTES and getattr(found, name):
            found = found.model_copy(update={name: getattr(found, name)[:-1]})
    return found


def _plan(row: Candidate) -> BriefPlan:
    needed, recipe = row.memory.needed_bytes, row.recipe
    return BriefPlan(
        method=row.method,
        verdict=row.verdict,
        needed_gib=(round(needed.low / GIB, 2), round(needed.high / GIB, 2)),
        total_s=None if row.time is None else (round(row.time.total_s.low, 1), round(row.time.total_s.high, 1)),
        micro_batch=recipe.micro_batch,
        gradient_accumulation=recipe.gradient_accumulation,
        gradient_checkpointing=recipe.gradient_checkpointing,
    )


def _texts(said: Sequence[Reason]) -> tuple[str, ...]:
    """The first few sentences, cut where one is long; each with the rule that says it."""
    found = (f"{one.text} [{one.code}]" for one in said[:_MOST_TEXTS])
    return tuple(text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..." for text in found)
