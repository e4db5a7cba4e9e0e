"""The short answer: what it holds, how long it is, and that its flags lead back to the plan."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from click.testing import CliRunner

from advisor.advice.advise import advise
from advisor.advice.brief import MOST_BYTES, brief
from advisor.cli import cli

BYTES_OF_A_TOKEN = 3
"""Of JSON, at least."""


@pytest.mark.parametrize(
    ("gpu", "knobs"),
    [("24GB", {}), ("12GB", {}), ("4090", {"gpus": 2}), ("8GB", {"method": "full"})],
    ids=str,
)
def test_at_most_1200_tokens(gpu: str, knobs: dict[str, Any]) -> None:
    answer = advise("llama-8b", gpu, 3000, **knobs)
    short = brief(answer)
    assert len(short.model_dump_json()) < 1200 * BYTES_OF_A_TOKEN
    assert (short.recommended is None) == (answer.recommendation is None)
    assert [one.method for one in short.plans] == [row.method for row in answer.candidates]
    assert short.would_fit or answer.recommendation is not None


def test_what_matters_least_is_left_out_where_it_is_too_long() -> None:
    answer = advise("llama-8b", "24GB", 3000)
    assert answer.recommendation is not None
    long = [one.model_copy(update={"text": "\u00e9" * 230}) for one in (*answer.notes, *answer.notes)][:3]
    said = answer.recommendation.model_copy(update={"reasons": tuple(long), "warnings": tuple(long)})
    short = brief(answer.model_copy(update={"notes": tuple(long), "recommendation": said}))
    assert len(short.model_dump_json().encode()) <= MOST_BYTES
    assert (len(short.assumed), len(short.warnings)) == (0, 3)
    assert short.plans == brief(answer).plans


def test_its_flags_answer_for_the_same_plan() -> None:
    runner = CliRunner()
    job = ["--model", "llama-8b", "--gpu", "4090", "--examples", "3000", "--json", "--brief"]
    first = json.loads(runner.invoke(cli, job).stdout)
    again = json.loads(runner.invoke(cli, [*job, *shlex.split(first["flags"])]).stdout)
    (plan,) = again["plans"]
    assert plan in first["plans"]


def test_it_is_json_or_nothing() -> None:
    result = CliRunner().invoke(cli, ["--model", "llama-8b", "--gpu", "4090", "--brief"])
    assert (result.exit_code, result.stderr) == (2, "advise: error: --brief has no effect without --json\n")
