"""Predicted memory against published measurements: `advise validate`, with limits on the errors.

    python benchmarks/published_memory.py

Exits with 1 when the median error of a framework's complete rows (all its rows if none is complete) exceeds its
limit: 2 % for transformers and peft, 5 % for other stacks.
"""

from __future__ import annotations

import sys

from advisor.validation.report import Line, Report, quality_of, validate
from advisor.validation.text import report_lines

MEDIAN_BARS = {"huggingface": 0.02, "lit-gpt": 0.05, "torchtune": 0.05, "qwen": 0.05}


def judged_lines(report: Report, framework: str) -> list[Line]:
    """The rows by which a framework is judged."""
    lines = [line for line in report.lines if line.framework == framework]
    return [line for line in lines if line.row["completeness_mem"] == "A"] or lines


def missed_bars(report: Report) -> list[str]:
    """The frameworks whose error exceeds their limit, each with its median."""
    missed = []
    for framework, bar in MEDIAN_BARS.items():
        lines = judged_lines(report, framework)
        median = quality_of(framework, lines).median if lines else 0.0
        if median > bar:
            missed.append(f"{framework}: median {median:.1%}, bar {bar:.0%}")
    return missed


def main() -> int:
    """Print the table; returns 1 when a framework exceeds its limit."""
    report = validate()
    print("\n".join(report_lines(report)))
    missed = missed_bars(report)
    print("\n".join(missed or ["every median is within its bar"]))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
