"""How notebooks get answers to show: what draws them stands above them, and is loaded when one is shown."""

from __future__ import annotations

from importlib import import_module


class Shown:
    """A value that a notebook shows as HTML. Its class has a function of its own in `advisor.charts.notebook`."""

    def _repr_html_(self) -> str:
        text: str = import_module("advisor.charts.notebook").html_of(self)
        return text
