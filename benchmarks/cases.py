"""Public reports of runs that ended well or badly, each asked as its author could have asked before.

    python -m benchmarks.cases

A report tells whether the job ran, how much memory it took or how long. `expected` in profiles/measured/cases.jsonl
holds what of it can be compared; `wrong_because` says why an answer differs, where the reason is known. Exits with 1
when an answer is wrong or refused without such a reason.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple

from advisor.advice.advise import advise
from advisor.answer import Advice, Candidate
from advisor.cli import cli
from advisor.errors import AdvisorError
from advisor.knobs import BY_NAME
from advisor.units import GIB

HOUR_S = 3600.0
Outcome = Literal["right", "wrong", "refused"]


class Case(NamedTuple):
    """One report, what was answered to its command, and whether that is right."""

    report: dict[str, Any]
    answer: str
    outcome: Outcome


def reports() -> list[dict[str, Any]]:
    """All rows, in the order of the file."""
    text = (resources.files("profiles") / "measured" / "cases.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def judged(report: dict[str, Any]) -> Case:
    """Ask a report's command through the command line's own parser, and judge the answer."""
    try:
        advice = answered(report["command"])
    except AdvisorError as error:
        return Case(report, str(error), "refused")
    row = _row(advice)
    return Case(report, _said(row), "right" if all(_checks(report["expected"], row, advice)) else "wrong")


def answered(command: str) -> Advice:
    """The answer to a command line. Raises AdvisorError where it is refused."""
    _, *words = shlex.split(command)
    given = cli.make_context("advise", words).params
    return advise(**{name: value for name, value in given.items() if name in BY_NAME})


def _row(advice: Advice) -> Candidate:
    chosen = advice.recommendation
    return advice.candidates[0] if chosen is None else advice.candidate(chosen.method)


def _checks(expected: dict[str, Any], row: Candidate, advice: Advice) -> Iterator[bool]:
    """One value for each thing that is expected; a run that ran out of memory may have been called tight."""
    if "runs" in expected:
        yield row.verdict != "does_not_fit" if expected["runs"] else row.verdict != "fits"
    if "memory_gib" in expected:
        low, high = (bound * GIB for bound in expected["memory_gib"])
        yield row.memory.device_bytes.low <= high and low <= row.memory.device_bytes.high
    if "hours" in expected:
        yield row.time is not None and row.time.total_s.low <= expected["hours"] * HOUR_S <= row.time.total_s.high
    if "more_than_lora" in expected:
        other, lora = (advice.candidate(name).memory.needed_bytes for name in (expected["more_than_lora"], "lora"))
        yield other.low > lora.high


def _said(row: Candidate) -> str:
    needed, shown, time = row.memory.needed_bytes, row.memory.device_bytes, row.time
    hours = "" if time is None else f"; {time.total_s.low / HOUR_S:.3g} to {time.total_s.high / HOUR_S:.3g} h"
    return (
        f"{row.recipe.method} {row.verdict}: needs {needed.low / GIB:.1f} to {needed.high / GIB:.1f} GiB, "
        f"shows {shown.low / GIB:.1f} to {shown.high / GIB:.1f}{hours}"
    )


def case_lines(found: Sequence[Case]) -> Iterator[str]:
    """Every report with its answer, and how many are right."""
    for case in found:
        yield f"{case.outcome:7} {case.report['model']} on {case.report['gpu']}: {case.report['reported']}"
        yield f"        {case.answer}"
        if case.outcome != "right" and case.report.get("wrong_because"):
            yield f"        because: {case.report['wrong_because']}"
    count = {name: sum(case.outcome == name for case in found) for name in ("right", "wrong", "refused")}
    yield f"{count['right']} right, {count['wrong']} wrong, {count['refused']} refused of {len(found)}"


def main() -> int:
    """Print every case; returns 1 for one that is wrong without a known reason."""
    found = [judged(report) for report in reports()]
    print("\n".join(case_lines(found)))
    return int(any(case.outcome != "right" and "wrong_because" not in case.report for case in found))


if __name__ == "__main__":
    sys.exit(main())
