"""What the rules say of a question: the recommendation with its reasons, remarks and warnings."""

from __future__ import annotations

from advisor.answer import Reason, Recommendation
from advisor.errors import InputError
from advisor.rates import learning_rate
from advisor.rules import RULES
from advisor.rules.context import Context, Finding, Rule
from advisor.specs import TracedModel


def decide(context: Context) -> tuple[tuple[Reason, ...], Recommendation | None]:
    """The recommendation of the first rule that makes one; when nothing fits, only that rule's reasons."""
    for rule in RULES:
        finding = _finding(rule, context) if rule.kind == "recommends" else None
        if finding is None:
            continue
        if finding.method is None:
            return finding.reasons, None
        chosen = context._replace(recommended=finding.method)
        row = context.candidates[finding.method]
        return (), Recommendation(
            method=finding.method,
            rank=row.recipe.rank if row.recipe.has_rank else 0,
            learning_rate=learning_rate(finding.method, context.parameters, row.recipe.variant).value,
            rule=rule.code,
            reasons=(*finding.reasons, *said(chosen, "remarks")),
            warnings=said(chosen, "warns"),
        )
    raise AssertionError("the last recommending rule answers whenever no other does")


def _finding(rule: Rule, context: Context) -> Finding | None:
    """What a rule says; None if it compares with a recipe that cannot be run.

    Such as one that a traced model's profile lacks, or fp32 weights beside a kernel for 16 bits.
    """
    try:
        return rule.check(context)
    except InputError:
        if rule.kind != "recommends" or isinstance(context.model, TracedModel):
            return None
        raise


def said(context: Context, kind: str) -> tuple[Reason, ...]:
    """Everything that the rules of one kind say."""
    findings = (_finding(rule, context) for rule in RULES if rule.kind == kind)
    return tuple(reason for finding in findings if finding is not None for reason in finding.reasons)
