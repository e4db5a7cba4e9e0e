"""Thirty public reports of runs that ended well or badly, each asked by its command line: how many answers are right.

    python -m benchmarks.cases

Exits with 1 when an answer is wrong or refused for which profiles/measured/cases.jsonl gives no reason.
"""

from __future__ import annotations

import sys

from advisor.validation.cases import case_lines, judged, reports


def main() -> int:
    """Print every case; returns 1 for one that is wrong without a known reason."""
    print("\n".join(case_lines()))
    unexplained = [
        one for one in map(judged, reports()) if one.outcome != "right" and "wrong_because" not in one.report
    ]
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
