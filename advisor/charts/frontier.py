"""The plans that none beats in both memory and time, as points."""

from __future__ import annotations

from html import escape

from advisor.answer import Advice, Plan
from advisor.charts.axes import log_axis
from advisor.charts.chart import Chart
from advisor.charts.memory import gib, verdict_text
from advisor.charts.plots import Point, at_x, at_y, dot, plotted
from advisor.charts.time import unit_of
from advisor.recipes import flags_of
from advisor.rules.wording import DISPLAY, how
from advisor.specs import Recipe, TimeEstimate
from advisor.units import GIB, format_gib, format_seconds


def frontier_chart(advice: Advice, buttons: bool = False) -> Chart | None:
    """Memory against time; None where there are fewer than two plans, or no times.

    Each point's `data-flags` pin its plan beside the question's own flags. `buttons`: each can be reached and pressed.
    """
    timed = [(plan, plan.time) for plan in advice.frontier if plan.time is not None]
    if len(timed) < 2 or advice.recommendation is None:
        return None
    method = advice.recommendation.method
    chosen = advice.candidate(method).recipe
    sizes = [plan.memory.needed_bytes.likely / GIB for plan, _ in timed]
    x = log_axis(sizes, "likely GiB that must fit", "{:g}".format)
    unit_s, unit = unit_of(max(time.total_s.likely for _, time in timed))
    y = log_axis([time.total_s.likely / unit_s for _, time in timed], f"likely {unit}", "{:g}".format)
    points = [
        Point(size, time.total_s.likely / unit_s, method, _said(advice, plan, time))
        for size, (plan, time) in zip(sizes, timed, strict=True)
    ]
    path = " ".join(f"{at_x(x, one.x):.1f},{at_y(y, one.y):.1f}" for one in points)
    marks = [f'<polyline class="joined" points="{path}"/>']
    for (plan, _), point in zip(timed, points, strict=True):
        ring = _circle("ring", at_x(x, point.x), at_y(y, point.y), 7.5) if plan.recipe == chosen else ""
        target = _circle("target", at_x(x, point.x), at_y(y, point.y), 13)
        operated = f' role="button" tabindex="0" aria-label="{escape(point.text)}"' if buttons else ""
        flags = escape(" ".join(flags_of(plan.recipe, advice.fixed)))
        marks.append(f'<g class="plan" data-flags="{flags}"{operated}>{target}{ring}{dot(x, y, point)}</g>')
    title = f"Plans of {DISPLAY[method]}, none beaten in both memory and time; the ringed one is taken."
    text = " ".join(f"{point.text}." for point in points)
    head = ("plan", "verdict", "likely, GiB", "low, GiB", "high, GiB", "likely, s", "low, s", "high, s")
    rows = tuple(_cells(advice, plan, time, chosen) for plan, time in timed)
    return Chart("frontier", title, plotted(title, x, y, marks, text=text, group=buttons), head, rows)


def _circle(kind: str, x: float, y: float, radius: float) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def _said(advice: Advice, plan: Plan, time: TimeEstimate) -> str:
    memory, duration = format_gib(plan.memory.needed_bytes.likely), format_seconds(time.total_s.likely)
    return f"{how(plan.recipe)}: {memory} GiB, {duration}, {verdict_text(advice, plan)}"


def _cells(advice: Advice, plan: Plan, time: TimeEstimate, chosen: Recipe) -> tuple[str, ...]:
    needed, total = plan.memory.needed_bytes, time.total_s
    name = how(plan.recipe) + (" (taken)" if plan.recipe == chosen else "")
    spans = (f"{value:,.1f}" for value in (total.likely, total.low, total.high))
    return (name, verdict_text(advice, plan), *map(gib, (needed.likely, needed.low, needed.high)), *spans)
