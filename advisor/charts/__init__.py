"""Answers as pictures: SVG drawn once for a web page, a notebook and the report of `calibrate`, each with its table.

    from advisor.charts import STYLE, charts_of
    page = f"<style>{STYLE}</style>" + "".join(chart.html() for chart in charts_of(advice))

No script, no style attribute, no color outside of STYLE: a page whose policy forbids inline code shows them.
"""

from __future__ import annotations

from advisor.charts.answer import charts_of
from advisor.charts.chart import Chart
from advisor.charts.style import STYLE

__all__ = ["STYLE", "Chart", "charts_of"]
