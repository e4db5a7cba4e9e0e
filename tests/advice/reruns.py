"""Asking a changed question again, as a person would: by the flags that the answer names."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from advisor import advise
from advisor.answer import Advice, Candidate, Change
from advisor.cli import cli
from advisor.knobs import BY_NAME
from advisor.recipes import flag


def flags_for(question: dict[str, Any]) -> list[str]:
    """The question as flags, in the order of its knobs."""
    return [flag(name, value) for name, value in question.items() if name in BY_NAME]


def asked(flags: Sequence[str]) -> Advice:
    """The answer to a question in flags, each with its value."""
    arguments = [word for one in flags for word in shlex.split(one)]
    parameters = cli.make_context("advise", arguments).params
    return advise(**{name: value for name, value in parameters.items() if name in BY_NAME})


def row_of(question: dict[str, Any], change: Change) -> Candidate:
    """The row that a change leads to when the changed question is asked."""
    assert change.plan is not None
    return asked([*flags_for(question), *change.flags]).candidate(change.plan.recipe.method)


def check_true(question: dict[str, Any], change: Change) -> None:
    """The change's plan is what the changed question gets, to the byte and the microsecond."""
    row = row_of(question, change)
    assert change.plan is not None
    assert row.recipe == change.plan.recipe, change.text
    assert row.memory == change.plan.memory
    assert row.verdict == change.plan.verdict
    assert row.time == change.plan.time
    assert row.cost == change.plan.cost
