"""The evidence table in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

from advisor.units import format_gib
from advisor.validation.figures import Row
from advisor.validation.report import Report
from advisor.validation.timing import TimeReport


def report_lines(report: Report) -> Iterator[str]:
    """Every figure, how good each part is, the verdicts, and what is not predicted and why."""
    yield f"{'row':20} {'method':6} {'what':15} {'measured GiB':>12} {'predicted':>9} {'error':>7}"
    for line in report.lines:
        figure = line.figure
        yield (
            f"{line.row['id']:20} {line.row['method']:6} {figure.what:15} {format_gib(figure.measured_bytes):>12} "
            f"{format_gib(figure.predicted_bytes):>9} {figure.error:+7.1%}"
        )
    yield ""
    yield f"{'part':42} {'figures':>7} {'rows':>4} {'median':>7} {'worst over':>10} {'worst under':>11}"
    for part in report.qualities():
        yield (
            f"{part.part:42} {part.figures:7} {part.rows:4} {part.median:7.1%} {part.worst_over:+10.1%} "
            f"{part.worst_under:+11.1%}"
        )
    yield ""
    for ran, name in ((False, "ran out of memory"), (True, "completed")):
        found = [v for v in report.verdicts if v.ran is ran]
        right = sum(v.right for v in found)
        yield f"runs that {name}: {right} of {len(found)} verdicts right"
        yield from (f"  {v.row['id']}: said '{v.fits}'" for v in found if not v.right)
    yield from _unanswered(report.unanswered)


def time_lines(report: TimeReport) -> Iterator[str]:
    """Every step time, absolute, as a ratio and as a shape, then how good they are, and what is not predicted."""
    ratio_of = {id(one.timed): one for one in report.ratios}
    shape_of = {id(timed): error for timed, error in report.shapes}
    yield (
        f"{'row':16} {'method':6} {'tokens':>6} {'measured s':>10} {'predicted, low to high':>27} {'error':>6} "
        f"{'ratio':>6} {'ours':>6} {'error':>6} {'shape':>6}  bound"
    )
    for one in report.rows:
        step, ratio = one.estimate.step_s, ratio_of.get(id(one))
        numbers = f"{ratio.measured:6.3f} {ratio.predicted:6.3f} {ratio.error:+6.1%}" if ratio else " " * 20
        shape = f"{shape_of[id(one)]:+6.1%}" if id(one) in shape_of else " " * 6
        yield (
            f"{one.row['id']:16} {one.row['method']:6} {one.micro_tokens:6} {one.measured_s:10.3f} "
            f"{step.likely:8.3f} {step.low:8.3f} {step.high:8.3f}{' ' if one.covered else '*'} {one.error:+6.1%} "
            f"{numbers} {shape}  {one.estimate.bound}{', compiled' if one.compiled else ''}"
        )
    yield ""
    eager = [one for one in report.rows if not one.compiled]
    yield from _spread("eager rows, absolute", [one.error for one in eager])
    yield from _spread("ratios inside a source", [one.error for one in report.ratios])
    yield from _spread("shapes over lengths", [error for _, error in report.shapes])
    yield f"in our interval: {sum(one.covered for one in eager)} of {len(eager)} eager rows (* outside)"
    yield "ratio: to the plain row of the same source and model; shape: error without the model's common factor"
    yield from _unanswered(report.unanswered)


def _spread(name: str, errors: list[float]) -> Iterator[str]:
    if errors:
        yield (
            f"{name:24} {len(errors):3} rows: median {median(map(abs, errors)):.1%}, "
            f"{min(0.0, *errors):+.1%} to {max(0.0, *errors):+.1%}"
        )


def _unanswered(rows: Iterable[tuple[Row, str]]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for row, reason in rows:
        reasons.setdefault(reason, []).append(row["id"])
    for reason, ids in reasons.items():
        yield f"not predicted, {reason}: {len(ids)} rows ({ids[0]} .. {ids[-1]})"
