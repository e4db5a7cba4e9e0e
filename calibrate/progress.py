"""Reports the progress of a session: a live line on a terminal, else plain lines; JSON on request. Needs no torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

import click

from advisor.units import format_seconds
from calibrate.checks import is_worst, marks_of
from calibrate.measurement import Comparison
from calibrate.plan import PlannedBurst
from calibrate.records_show import gib, percent, seconds


class Audience:
    """Prints what a session does: results as lines and, on request, as JSON on standard output."""

    def __init__(self, as_json: bool, budget_s: float, out: TextIO | None = None) -> None:
        """`budget_s` is shown beside the time that has passed."""
        self._as_json = as_json
        self._budget_s = budget_s
        self._out = out or sys.stderr
        self._begin_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Restore the terminal."""

    def begin(self, number: int, total: int, burst: PlannedBurst) -> None:
        """A burst is about to run."""

    def hear(self, news: Mapping[str, Any]) -> None:
        """One of its steps is done."""

    def end(self, number: int, total: int, burst: PlannedBurst, record: Comparison, kept: bool) -> None:
        """It has been measured; `kept` if by an earlier run."""
        width = len(str(total))
        before = " (measured before)" if kept else ""
        self.line(f"[{number:{width}}/{total}] {burst.label}{before}: {result_text(record)}")
        if self._as_json:
            click.echo(record.model_dump_json())

    def line(self, text: str) -> None:
        """Print one line."""
        click.echo(text, file=self._out)

    def elapsed_s(self) -> float:
        """Seconds since the session began."""
        return time.monotonic() - self._begin_s


class LiveAudience(Audience):
    """The same with a live line, on a terminal."""

    def __init__(self, as_json: bool, budget_s: float, out: TextIO | None = None) -> None:
        """See Audience."""
        super().__init__(as_json, budget_s, out)
        from rich.console import Console
        from rich.status import Status

        self._doing = self._steps = ""
        self._console = Console(file=self._out, highlight=False, markup=False)
        self._status = Status(self, console=self._console, refresh_per_second=4)
        self._status.start()

    def __rich__(self) -> str:
        """The live line as it is now, cut to the terminal's width."""
        clock = f"{format_seconds(self.elapsed_s())} of {format_seconds(self._budget_s)}: "
        return (clock + self._doing + self._steps)[: max(10, self._console.width - 4)]

    def stop(self) -> None:
        """Remove the live line."""
        self._status.stop()

    def begin(self, number: int, total: int, burst: PlannedBurst) -> None:
        """Show which burst it is, and what is predicted for it."""
        figures = burst.prediction.figures
        peak = f", {gib(figures.peak_allocated_bytes)} GiB predicted" if figures is not None else ""
        self._doing, self._steps = f"[{number}/{total}] {burst.label}{peak}", ""

    def hear(self, news: Mapping[str, Any]) -> None:
        """Show how many steps there are, and the last one's time."""
        if "step_s" in news:
            self._steps = f", step {news['steps']}: {seconds(news['step_s'])}"
        else:
            self._steps = f", warming up: {seconds(news['warm_up_s'])}"

    def line(self, text: str) -> None:
        """Print above the live line."""
        self._console.print(text, soft_wrap=True)


def audience_for(as_json: bool, budget_s: float) -> Audience:
    """A LiveAudience on a terminal, else a plain one."""
    return (LiveAudience if sys.stderr.isatty() else Audience)(as_json, budget_s)


def result_text(record: Comparison) -> str:
    """A result in one line: 'peak 0.312 GiB predicted, 0.312 measured (0.0%); step 123 ms'."""
    predicted, measured, burst = record.predicted, record.measured, record.burst
    assert burst is not None
    if measured is None:
        if is_worst(record):
            return f"OUT OF MEMORY, though only {gib(burst.needed_bytes)} of {gib(burst.limit_bytes)} GiB predicted"
        return f"{burst.outcome.replace('_', ' ')}: {burst.error}"
    peak = f"peak {gib(measured.peak_allocated_bytes)} GiB"
    if predicted is not None:
        sizes = f"{gib(predicted.peak_allocated_bytes)} GiB, {gib(measured.peak_allocated_bytes)} measured"
        peak = f"peak {sizes} ({percent(record.error_of('peak_allocated_bytes'), 2)})"
    step = f"step {seconds(measured.step_s)}"
    if predicted is not None and predicted.step_s is not None:
        step = f"step {seconds(predicted.step_s)}, {seconds(measured.step_s)} measured"
        step += f" ({percent(record.error_of('step_s'))})"
    codes = ", ".join(dict.fromkeys(mark.code for mark in marks_of(record)))
    return f"{peak}; {step}{f'; marked: {codes}' if codes else ''}"
