"""The evidence table in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.units import format_gib
from advisor.validation.report import Report


def report_lines(report: Report) -> Iterator[str]:
    """Every figure, how good each part is, the verdicts, and what is not predicted and why."""
    yield f"{'row':20} {'method':6} {'what':15} {'measured GiB':>12} {'predicted':>9} {'error':>7}"
    for line in report.lines:
        figure = line.figure
        yield (f"{line.row['id']:20} {line.row['method']:6} {figure.what:15} {format_gib(figure.measured_bytes):>12} "
               f"{format_gib(figure.predicted_bytes):>9} {figure.error:+7.1%}")  # fmt: skip
    yield ""
    yield f"{'part':42} {'figures':>7} {'rows':>4} {'median':>7} {'worst over':>10} {'worst under':>11}"
    for part in report.qualities():
        yield (f"{part.part:42} {part.figures:7} {part.rows:4} {part.median:7.1%} {part.worst_over:+10.1%} "
               f"{part.worst_under:+11.1%}")  # fmt: skip
    yield ""
    for ran, name in ((False, "ran out of memory"), (True, "ended")):
        found = [v for v in report.verdicts if v.ran is ran]
        right = sum(v.right for v in found)
        yield f"runs that {name}: {right} of {len(found)} verdicts right"
        yield from (f"  {v.row['id']}: said '{v.fits}'" for v in found if not v.right)
    reasons: dict[str, list[str]] = {}
    for row, reason in report.unanswered:
        reasons.setdefault(reason, []).append(row["id"])
    for reason, ids in reasons.items():
        yield f"not predicted, {reason}: {len(ids)} rows ({ids[0]} .. {ids[-1]})"
