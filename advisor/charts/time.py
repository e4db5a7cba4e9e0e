"""How long the job takes: by each method, and on fewer or more cards."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.advice.sentence import gpu_text
from advisor.answer import Advice, Plan, Spread
from advisor.charts.bars import Bar, Limit, Segment, bars
from advisor.charts.chart import Chart
from advisor.charts.memory import axis_end, gib, hatches, row_text, verdict_text
from advisor.interval import Interval
from advisor.rules.wording import DISPLAY
from advisor.specs import TimeEstimate
from advisor.units import GIB, format_gib, format_seconds

_UNITS = ((3600.0 * 24, "days", 2.0), (3600.0, "hours", 1.5), (60.0, "minutes", 1.5), (1.0, "seconds", 0.0))
"""Seconds of a unit, its name, and of how many on the axis counts in it."""


def time_chart(advice: Advice) -> Chart | None:
    """A bar of the whole job for each method that fits, from low to high; None where no time is known."""
    plans = [(DISPLAY[row.method], row) for row in advice.candidates]
    if not any(map(_time, advice.candidates)):
        return None
    chosen = None if advice.recommendation is None else DISPLAY[advice.recommendation.method]
    title = f"Time of the whole job by each method that fits on {gpu_text(advice)}."
    return Chart("time", title, _timed(title, advice, plans, chosen), *_table("method", advice, plans))


def scaling_chart(advice: Advice) -> Chart | None:
    """The recommended method on fewer and more cards: its time, or its memory where no time is known."""
    if len(advice.scaling) < 2 or advice.recommendation is None:
        return None
    plans = [(_cards(one), one.plan) for one in advice.scaling]
    chosen = next((_cards(one) for one in advice.scaling if one.gpus == advice.gpu.gpus), None)
    method = DISPLAY[advice.recommendation.method]
    if all(one.plan.time for one in advice.scaling if one.plan.verdict != "does_not_fit"):
        title = f"Time of the whole job by {method} on fewer and more cards."
        svg = _timed(title, advice, plans, chosen)
    else:
        title = f"Memory of one card by {method} on fewer and more cards."
        svg = _held(title, advice, plans, chosen)
    return Chart("scaling", title, svg, *_table("cards", advice, plans))


def unit_of(longest_s: float) -> tuple[float, str]:
    """Seconds of the unit that an axis up to so many counts in, and its name."""
    return next((size, name) for size, name, least in _UNITS if longest_s >= least * size)


def _cards(one: Spread) -> str:
    return "1 card" if one.gpus == 1 else f"{one.gpus:,} cards, {one.engine}"


def _time(plan: Plan) -> TimeEstimate | None:
    """Its time, if it runs."""
    return None if plan.verdict == "does_not_fit" else plan.time


def _timed(title: str, advice: Advice, plans: Sequence[tuple[str, Plan]], chosen: str | None) -> str:
    longest = max(time.total_s.high for _, plan in plans if (time := _time(plan)) is not None)
    unit_s, unit = unit_of(longest)
    rows, text = [], []
    for name, plan in plans:
        time, verdict = _time(plan), verdict_text(advice, plan)
        low, likely, high = Interval.exact(0.0) if time is None else time.total_s
        in_words = f"{format_seconds(likely)} ({format_seconds(low)} to {format_seconds(high)})"
        span = verdict if time is None else in_words
        text.append(f"{name}: {span}.")
        bar = () if time is None else (Segment("weights", likely / unit_s, f"{name}: {span}"),)
        star = "★ " if name == chosen else ""
        rows.append(Bar(star + name, span, bar, low / unit_s, high / unit_s, plan.verdict, strong=name == chosen))
    legend = [("whisker", "low to high"), *hatches({plan.verdict for _, plan in plans if _time(plan) is not None})]
    return bars(title, " ".join(text), rows, (longest / unit_s, unit, "{:g}".format), legend=legend)


def _held(title: str, advice: Advice, plans: Sequence[tuple[str, Plan]], chosen: str | None) -> str:
    card = advice.gpu.memory_bytes
    rows = []
    for name, plan in plans:
        needed = plan.memory.needed_bytes
        figures = f"{format_gib(needed.low)}–{format_gib(needed.high)} GiB"
        bar = (Segment("weights", needed.likely / GIB, f"{name}: {figures}"),)
        star = "★ " if name == chosen else ""
        label = f"{star}{name}: {verdict_text(advice, plan)}"
        rows.append(Bar(label, figures, bar, needed.low / GIB, needed.high / GIB, plan.verdict, strong=name == chosen))
    end = axis_end([plan.memory.needed_bytes.high for _, plan in plans], card) / GIB
    limit = Limit(card / GIB, f"the card: {format_gib(card)} GiB")
    legend = [("whisker", "low to high"), *hatches({plan.verdict for _, plan in plans})]
    text = " ".join(f"{name}: {row_text(advice, plan)}." for name, plan in plans)
    return bars(title, text, rows, (end, "GiB of one card", "{:g}".format), limit, legend)


def _table(
    first: str, advice: Advice, plans: Sequence[tuple[str, Plan]]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Head and rows: the seconds of the job, and what must fit."""
    head = (first, "verdict", "likely, s", "low, s", "high, s", "GiB that must fit, likely", "at most")
    return head, tuple((name, verdict_text(advice, plan), *_figures(plan)) for name, plan in plans)


def _figures(plan: Plan) -> tuple[str, ...]:
    time, needed = _time(plan), plan.memory.needed_bytes
    spans = ("-", "-", "-")
    if time is not None:
        likely, low, high = (f"{value:,.1f}" for value in (time.total_s.likely, time.total_s.low, time.total_s.high))
        spans = (likely, low, high)
    return (*spans, gib(needed.likely), gib(needed.high))
