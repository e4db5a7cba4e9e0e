"""Answers as HTML for a notebook: one sentence, a table, pictures and reasons; its style stays within."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from advisor.advice.check import Checked
from advisor.advice.phrases import JUDGED
from advisor.advice.sentence import verdict_line
from advisor.answer import Advice, Candidate, Reason
from advisor.charts.answer import charts_of
from advisor.charts.chart import table
from advisor.charts.memory import estimate_chart, verdict_text
from advisor.charts.style import STYLE
from advisor.rules.wording import DISPLAY, needs
from advisor.specs import Estimate
from advisor.units import format_count, format_gib, format_seconds

_JUDGED = {**JUDGED, "unknown": "is not known to fit"}


def html_of(value: object) -> str:
    """What a notebook shows of an Advice, an Estimate or a Checked. Raises TypeError for anything else."""
    if isinstance(value, Advice):
        return framed(advice_body(value))
    if isinstance(value, Estimate):
        return framed(_estimate_body(value))
    if isinstance(value, Checked):
        return framed(_checked_body(value))
    raise TypeError(f"{type(value).__name__} is not shown as HTML: give an Advice, an Estimate or a Checked")


def framed(body: str) -> str:
    """A body with its style."""
    return f'<div class="advisor-answer"><style>{STYLE}</style>\n{body}</div>\n'


def sentences(texts: Iterable[str], title: str = "") -> str:
    """A list with its title; '' for no sentences."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"{f'<p>{escape(title)}</p>' if title else ''}<ul>{items}</ul>\n" if items else ""


def verdict(text: str) -> str:
    """The one sentence above all."""
    return f'<p class="verdict">{escape(text)}</p>\n'


def advice_body(advice: Advice) -> str:
    """An answer without its style."""
    found = advice.recommendation
    head = ("method", "verdict", "GiB that must fit", "least, GiB", "micro-batch x accumulation", "time")
    pictures = "".join(chart.html() for chart in charts_of(advice))
    return "".join(
        (
            verdict(verdict_line(advice)),
            f'<div class="scrolled">{table(head, (_cells(advice, row) for row in advice.candidates))}</div>\n',
            f'<div class="charts">{pictures}</div>\n',
            sentences(_texts(found.reasons), "Why") if found else "",
            sentences(_texts(found.warnings), "Warnings") if found else "",
            sentences(_texts(advice.alternatives), "What would surely fit" if found else "What would fit"),
        )
    )


def _texts(reasons: Iterable[Reason]) -> list[str]:
    return [one.text for one in reasons]


def _cells(advice: Advice, row: Candidate) -> tuple[str, ...]:
    recipe, runs = row.recipe, row.time is not None and row.verdict != "does_not_fit"
    checkpointing = ", checkpointing" if recipe.gradient_checkpointing else ""
    return (
        DISPLAY[row.method],
        verdict_text(advice, row),
        needs(row),
        format_gib(row.least.memory.needed_bytes.likely),
        f"{recipe.micro_batch} x {recipe.gradient_accumulation}{checkpointing}",
        format_seconds(row.time.total_s.likely) if row.time is not None and runs else "-",
    )


def _estimate_body(found: Estimate) -> str:
    needed, time = found.memory.needed_bytes, found.time
    text = (
        f"{DISPLAY[found.recipe.method]} needs {format_gib(needed.likely)} GiB "
        f"({format_gib(needed.low)} to {format_gib(needed.high)}); the peak is at {found.memory.peak_at}"
    )
    if time is not None:
        total, step = time.total_s, format_seconds(time.step_s.likely)
        span = f"{format_seconds(total.low)} to {format_seconds(total.high)}"
        text += f"; {format_seconds(total.likely)} in all ({span}), {step} a step"
    trained = f"{format_count(found.trainable_parameters)} parameters are trained."
    grounds = (trained, f"Memory: {found.evidence.memory}.", f"Time: {found.evidence.time}.")
    return f'{verdict(f"{text}.")}<div class="charts">{estimate_chart(found).html()}</div>\n{sentences(grounds)}'


def _checked_body(found: Checked) -> str:
    """The verdict on a file, why it is unknown, flags that win, what is assumed, and the run's own answer."""
    lines = verdict(f"The run of {found.path} {_JUDGED[found.verdict]}.")
    lines += (
        sentences(found.why, "Not understood, and it matters")
        + sentences(found.given, "Flags, which win")
        + sentences(found.assumed, "Assumed")
    )
    return lines + (advice_body(found.advice) if found.advice is not None else "")
