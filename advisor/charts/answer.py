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

    The step is that of the recommended plan; where nothing fits, of the one that needs the least. `buttons`: the
    points of the frontier are reached by the keyboard, for a page that does something when one is pressed.
    """
    rows = advice.candidates
    chosen = min(rows, key=lambda row: row.memory.needed_bytes.likely)
    if advice.recommendation is not None:
        chosen = advice.candidate(advice.recommendation.method)
    found = (
        memory_chart(advice),
        time_chart(advice),
        step_chart(advice, chosen),
        frontier_chart(advice, buttons),
        scaling_chart(advice),
    )
    return tuple(chart for chart in found if chart is not None)
