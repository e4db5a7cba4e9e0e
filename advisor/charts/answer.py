"""Which pictures an answer has."""

from __future__ import annotations

from advisor.answer import Advice
from advisor.charts.chart import Chart
from advisor.charts.frontier import frontier_chart
from advisor.charts.memory import memory_chart
from advisor.charts.step import step_chart
from advisor.charts.time import scaling_chart, time_chart


def charts_of(advice: Advice, *, buttons: bool = False) -> tuple[Chart, ...]:
    """Memory, time, one step, frontier and scaling, each where the answer has the data for it.

    `buttons`: the points of the frontier are reached by the keyboard, for a page that does something when one is
    pressed.
    """
    return (*charts_of_methods(advice), *charts_of_plan(advice, buttons=buttons))


def charts_of_methods(advice: Advice) -> tuple[Chart, ...]:
    """Those that compare the methods: memory and time."""
    return _there(memory_chart(advice), time_chart(advice))


def charts_of_plan(advice: Advice, *, buttons: bool = False) -> tuple[Chart, ...]:
    """Those of the recommended plan and of others beside it; where nothing fits, of the one that needs the least."""
    rows = advice.candidates
    chosen = min(rows, key=lambda row: row.memory.needed_bytes.likely)
    if advice.recommendation is not None:
        chosen = advice.candidate(advice.recommendation.method)
    return _there(step_chart(advice, chosen), frontier_chart(advice, buttons), scaling_chart(advice))


def _there(*found: Chart | None) -> tuple[Chart, ...]:
    return tuple(chart for chart in found if chart is not None)
