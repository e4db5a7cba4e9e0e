"""Small pictures as SVG text: points, strips and lines between two axes. Pure, no library, no script.

Colors are classes ('full', 'lora', ...), which the page that holds the picture defines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 430, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 12, 12, 42
MAX_TICKS = 7

Format = Callable[[float], str]


class Point(NamedTuple):
    """One mark: its position, its class, and the text shown on hover."""

    x: float
    y: float
    kind: str
    text: str


class Axis(NamedTuple):
    """A range of values, linear or logarithmic, and how to format a value."""

    low: float
    high: float
    log: bool
    title: str
    write: Format

    def share(self, value: float) -> float:
        """The position of a value, from 0 at the low end to 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values for the axis labels."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [m * 10.0**e for e in range(first, last + 1) for m in steps]
                found = [value for value in found if self.low <= value <= self.high]
                if 2 <= len(found) <= MAX_TICKS:
                    return found
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        step = next(step * m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= MAX_TICKS)
        return [step * n for n in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def log_axis(values: Iterable[float], title: str, write: Format) -> Axis:
    """An axis that holds all values, which must be positive, with some margin."""
    found = list(values)
    return Axis(min(found) / 1.2, max(found) * 1.2, True, title, write)


def symmetric_axis(values: Iterable[float], title: str, write: Format, least: float) -> Axis:
    """An axis around zero, at least from -least to +least."""
    reach = max([least, *(1.15 * abs(value) for value in values)])
    return Axis(-reach, reach, False, title, write)


def scatter(points: Sequence[Point], x_title: str, y_title: str, write: Format) -> str:
    """Points on two equal logarithmic axes, with the line of equality."""
    both = [value for point in points for value in (point.x, point.y)]
    x, y = log_axis(both, x_title, write), log_axis(both, y_title, write)
    diagonal = f'<line class="equal" x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - RIGHT}" y2="{TOP}"/>'
    return _picture(x, y, [diagonal, *(_dot(x, y, point) for point in points)])


def strips(groups: Mapping[str, Sequence[tuple[float, str]]], y_title: str, write: Format, least: float) -> str:
    """A column of dots for each group, around a line at zero; each dot has a value and a text."""
    names = list(groups)
    y = symmetric_axis([value for rows in groups.values() for value, _ in rows], y_title, write, least)
    x = Axis(-0.5, len(names) - 0.5, False, "", lambda value: names[round(value)] if value == round(value) else "")
    marks = [f'<line class="equal" x1="{LEFT}" y1="{_y(y, 0):.1f}" x2="{WIDTH - RIGHT}" y2="{_y(y, 0):.1f}"/>']
    for place, name in enumerate(names):
        rows = groups[name]
        for number, (value, text) in enumerate(rows):
            aside = (number / max(1, len(rows) - 1) - 0.5) * 0.5  # side by side, in the order given
            marks.append(_dot(x, y, Point(place + aside, value, name, text)))
    return _picture(x._replace(title=""), y, marks, x_ticks=[float(place) for place in range(len(names))])


def curves(series: Sequence[tuple[str, bool, Sequence[Point]]], x: Axis, y: Axis) -> str:
    """Lines through points: (class, dashed, points) each; dashed ones have no dots."""
    marks: list[str] = []
    for kind, dashed, points in series:
        path = " ".join(f"{_x(x, point.x):.1f},{_y(y, point.y):.1f}" for point in points)
        marks.append(f'<polyline class="{kind}{" dashed" if dashed else ""}" points="{path}"/>')
        marks += [] if dashed else [_dot(x, y, point) for point in points]
    return _picture(x, y, marks)


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def _dot(x: Axis, y: Axis, point: Point) -> str:
    title = f"<title>{escape(point.text)}</title>"
    return f'<circle class="{point.kind}" cx="{_x(x, point.x):.1f}" cy="{_y(y, point.y):.1f}" r="3.5">{title}</circle>'


def _picture(x: Axis, y: Axis, marks: Iterable[str], x_ticks: Sequence[float] | None = None) -> str:
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{y.title} over {x.title}")}">',
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{base - TOP}"/>',
    ]
    for value in x.ticks() if x_ticks is None else x_ticks:
        at = f"{_x(x, value):.1f}"
        parts.append(
            f'<line class="tick" x1="{at}" y1="{base}" x2="{at}" y2="{base + 4}"/>'
            f'<text class="x" x="{at}" y="{base + 17}">{escape(x.write(value))}</text>'
        )
    for value in y.ticks():
        at = f"{_y(y, value):.1f}"
        parts.append(
            f'<line class="tick" x1="{LEFT - 4}" y1="{at}" x2="{LEFT}" y2="{at}"/>'
            f'<text class="y" x="{LEFT - 7}" y="{at}" dy="4">{escape(y.write(value))}</text>'
        )
    middle = (base + TOP) / 2
    parts.append(
        f'<text class="x" x="{(LEFT + right) / 2}" y="{HEIGHT - 6}">{escape(x.title)}</text>'
        f'<text class="x" transform="translate(13 {middle}) rotate(-90)">{escape(y.title)}</text>'
    )
    return "".join([*parts, *marks, "</svg>"])
