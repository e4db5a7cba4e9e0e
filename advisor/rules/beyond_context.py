"""Sequences longer than the model has seen.

Rows longer than the model's max_position_embeddings leave the range of positions it was trained on. Rotary models
run but degrade without rescaling; learned position tables end there and the run stops with an index error.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule

CODE = "ADV105"
SOURCE = "max_position_embeddings in the model's config.json"


def check(context: Context) -> Finding | None:
    """Compares --seq-len with the model's positions."""
    limit = context.model.max_position_embeddings
    if context.workload.seq_len <= limit or context.model.position in ("alibi", "none"):
        return None
    end = "the run will stop" if context.model.position == "learned" else "expect worse answers beyond it"
    text = (
        f"--seq-len {context.workload.seq_len:,} is beyond the {limit:,} positions that {context.model.name} "
        f"was made for: {end}."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
