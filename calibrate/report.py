"""Records of bursts as one self-contained HTML page: no script, no external font or image. Pure.

for each device   predicted against measured, memory and time; errors by method; step time over tokens; all rows;
                  attention by kernel, estimate beside measured
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from html import escape
from typing import NamedTuple

from advisor.charts.axes import Format, log_axis
from advisor.charts.chart import Chart
from advisor.charts.plots import Point, curves, scatter, strips
from advisor.charts.style import METHOD_COLORS, STYLE
from advisor.specs import METHODS
from advisor.units import GIB, format_seconds
from calibrate.attention_show import AttentionTable, attention_html
from calibrate.checks import is_worst, marks_of
from calibrate.measurement import Comparison
from calibrate.plan import shape_text
from calibrate.records_show import beyond_one_step, gib, label, percent, seconds, summary
from calibrate.residuals import PEAK, RESERVED, STEP, by_method, errors, spread

NOTHING = "There are no records yet. Run calibrate --method all to measure some."
PAGE = """
:root{color-scheme:light dark;--ink:#222;--page:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#ddd;--page:#161616}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:70rem;margin:1.5rem auto;
padding:0 1rem}
.pictures{display:flex;flex-wrap:wrap;gap:0 2rem}.pictures>*{flex:1 1 20rem}
table{border-collapse:collapse;font-size:13px}td,th{padding:.15rem .6rem;text-align:right}
td:nth-child(-n+3),th:nth-child(-n+3),td:last-child,th:last-child{text-align:left}tr.bad td{font-weight:bold}
.key{background:none}.key span{margin-right:1rem;white-space:nowrap}
""" + "".join(f".key .{name}::before{{content:'\\25cf ';color:var(--advisor-{name})}}" for name in METHOD_COLORS)


def report_html(records: Sequence[Comparison], attention: Iterable[AttentionTable] = ()) -> str:
    """The page for these records and the attention of their devices; one sentence when there are none."""
    body = "".join(_sections(records)) or f"<p>{NOTHING}</p>"
    body += "".join(map(attention_html, attention))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Predicted and measured fine-tuning steps</title><style>{STYLE}{PAGE}</style></head>\n"
        f"<body><h1>Predicted and measured fine-tuning steps</h1>\n{body}</body></html>\n"
    )


def _sections(records: Sequence[Comparison]) -> Iterator[str]:
    devices: dict[str, list[Comparison]] = {}
    for record in records:
        device = record.environment.device
        devices.setdefault(device.signature if device is not None else record.source, []).append(record)
    if devices:
        names = "".join(f'<span class="{name}">{name}</span>' for name in METHODS)
        yield f'<p class="advisor-answer key">{names}</p>\n'
    for name, group in devices.items():
        yield f"<h2>{escape(name)}</h2>\n{_software(group)}{_in_short(group)}"
        yield f'<div class="pictures">{"".join(chart.html() for chart in _pictures(group))}</div>'
        yield _table(group)


def _software(group: Sequence[Comparison]) -> str:
    stacks = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in one.environment.versions.items() if version) for one in group
    )
    return "".join(f"<p>{escape(stack)}</p>\n" for stack in stacks)


def _in_short(group: Sequence[Comparison]) -> str:
    lines = [
        f"{name}: {summary(found, digits)}"
        for name, field, digits in (("peak allocated", PEAK, 2), ("peak reserved", RESERVED, 1), ("step time", STEP, 1))
        if (found := spread(errors(group, field))) is not None
    ]
    lines += [line for one in group for line in beyond_one_step(one)]
    lines += [f"{label(one)} ran out of memory although it was predicted to fit" for one in group if is_worst(one)]
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>\n" if lines else ""


def _pictures(group: Sequence[Comparison]) -> Iterator[Chart]:
    for figure in _FIGURES:
        points = list(_points(group, figure))
        if points:
            title = f"{figure.title}: each burst, predicted and measured."
            axes = (f"predicted{figure.unit}", f"measured{figure.unit}")
            picture = scatter(title, points, *axes, figure.write)
            cells = tuple((*one.text.split(": "), f"{one.x:,.4g}", f"{one.y:,.4g}") for one in points)
            yield Chart(figure.field, title, picture, ("burst", "error", *axes), cells)
        groups = {
            method: [
                (error, f"{label(one)}: {percent(error, 2)}")
                for one in group
                if one.method == method and (error := one.error_of(figure.field)) is not None
            ]
            for method in by_method(group, figure.field)
        }
        if groups:
            title = f"{figure.title}: error of the prediction by method."
            picture = strips(title, groups, "error", partial(percent, digits=figure.digits), figure.least_error)
            rows = tuple((text, method) for method, found in groups.items() for _, text in found)
            yield Chart(f"{figure.field}-errors", title, picture, ("burst and error", "method"), rows)
    yield from _curves(group)


class _Figure(NamedTuple):
    """One figure of a record and how it is plotted: unit, digits, and least width of the error axis."""

    field: str
    title: str
    unit: str
    scale: float
    write: Format
    digits: int
    least_error: float


_FIGURES = (
    _Figure(PEAK, "Peak allocated", ", GiB", float(GIB), "{:g}".format, 2, 0.001),
    _Figure(STEP, "Step time", "", 1.0, format_seconds, 1, 0.05),
)


def _points(group: Iterable[Comparison], figure: _Figure) -> Iterator[Point]:
    for one in group:
        error = one.error_of(figure.field)
        if error is not None:
            x, y = (getattr(side, figure.field) / figure.scale for side in (one.predicted, one.measured))
            yield Point(x, y, one.method, f"{label(one)}: {percent(error, 2)}")


def _curves(group: Sequence[Comparison]) -> Iterator[Chart]:
    """For each model, with and without checkpointing: step time over tokens per step, one line per method."""
    models: dict[tuple[str, str, bool], list[Comparison]] = {}
    for one in group:
        if one.measured is not None and one.measured.step_s and one.burst is not None:
            key = (one.model, one.burst.cut, one.recipe.gradient_checkpointing)
            models.setdefault(key, []).append(one)
    for (model, cut, checkpointing), records in models.items():
        if len({_tokens(one) for one in records}) < 2:
            continue
        measured = [(m, False, _line(records, m, _measured_s)) for m in METHODS]
        predicted = [(m, True, _line(records, m, _predicted_s)) for m in METHODS]
        series = [one for one in (*measured, *predicted) if len(one[2]) > 1 or (one[2] and not one[1])]
        times = [point.y for _, _, points in series for point in points]
        way = "with" if checkpointing else "without"
        dashed = "; dashed: predicted" if any(one[1] for one in series) else ""
        title = f"{model}{f', {cut}' if cut else ''}, {way} checkpointing: step time over tokens{dashed}."
        tokens = log_axis([float(_tokens(one)) for one in records], "tokens per step", lambda v: f"{v:g}")
        rows = tuple(
            (f"{kind}, {'predicted' if ahead else 'measured'}", f"{point.x:,.0f}", format_seconds(point.y))
            for kind, ahead, points in series
            for point in points
        )
        picture = curves(title, series, tokens, log_axis(times, "step", format_seconds))
        yield Chart("step-times", title, picture, ("method", "tokens per step", "step"), rows)


def _line(records: Iterable[Comparison], method: str, time_of: Callable[[Comparison], float | None]) -> list[Point]:
    points = [
        Point(float(_tokens(one)), time_s, method, f"{label(one)}: {format_seconds(time_s)}")
        for one in records
        if one.method == method and (time_s := time_of(one))
    ]
    return sorted(points)


def _measured_s(record: Comparison) -> float | None:
    return record.measured.step_s if record.measured is not None else None


def _predicted_s(record: Comparison) -> float | None:
    return record.predicted.step_s if record.predicted is not None else None


def _tokens(record: Comparison) -> int:
    return record.batch * record.seq_len * record.recipe.gradient_accumulation


def _table(group: Iterable[Comparison]) -> str:
    heads = ("model", "method", "shape", "peak GiB", "measured", "error", "step", "measured", "error", "marks")
    rows = "".join(_row(one) for one in group)
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table>\n"


def _row(one: Comparison) -> str:
    predicted, measured, burst = one.predicted, one.measured, one.burst
    outcome = burst.outcome.replace("_", " ") if burst is not None else ""
    cells = (
        f"{one.model} ({burst.cut})" if burst is not None and burst.cut else one.model,
        one.method,
        shape_text(one.recipe, one.batch, one.seq_len, one.kind),
        "-" if predicted is None else gib(predicted.peak_allocated_bytes),
        outcome if measured is None else gib(measured.peak_allocated_bytes),
        percent(one.error_of(PEAK), 2),
        "-" if predicted is None else seconds(predicted.step_s),
        "-" if measured is None else seconds(measured.step_s),
        percent(one.error_of(STEP)),
        "; ".join(mark.text for mark in marks_of(one) if measured is not None),
    )
    bad = ' class="bad"' if is_worst(one) else ""
    return f"<tr{bad}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
