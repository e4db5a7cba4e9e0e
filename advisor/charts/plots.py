"""Points, strips and lines between two axes. A class names the color of each: a method, see `style.METHOD_COLORS`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from advisor.charts.axes import Axis, Format, log_axis, symmetric_axis
from advisor.charts.chart import WIDTH, box, line, picture, words

HEIGHT = 280
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 24, 42


class Point(NamedTuple):
    """One mark: its position, its class, and the text shown on hover."""

    x: float
    y: float
    kind: str
    text: str


def scatter(title: str, points: Sequence[Point], x_title: str, y_title: str, write: Format) -> str:
    """Points on two equal logarithmic axes, with the line of equality."""
    both = [value for point in points for value in (point.x, point.y)]
    x, y = log_axis(both, x_title, write), log_axis(both, y_title, write)
    diagonal = line("equal", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, TOP)
    return plotted(title, x, y, [diagonal, *(dot(x, y, point) for point in points)])


def strips(
    title: str, groups: Mapping[str, Sequence[tuple[float, str]]], y_title: str, write: Format, least: float
) -> str:
    """A column of dots for each group, around a line at zero; each dot has a value and a text."""
    names = list(groups)
    y = symmetric_axis([value for rows in groups.values() for value, _ in rows], y_title, write, least)
    x = Axis(-0.5, len(names) - 0.5, False, "", lambda value: names[round(value)] if value == round(value) else "")
    marks = [line("equal", LEFT, at_y(y, 0), WIDTH - RIGHT, at_y(y, 0))]
    for place, name in enumerate(names):
        rows = groups[name]
        for number, (value, text) in enumerate(rows):
            aside = (number / max(1, len(rows) - 1) - 0.5) * 0.5  # side by side, in the order given
            marks.append(dot(x, y, Point(place + aside, value, name, text)))
    return plotted(title, x, y, marks, x_ticks=[float(place) for place in range(len(names))])


def curves(title: str, series: Sequence[tuple[str, bool, Sequence[Point]]], x: Axis, y: Axis) -> str:
    """Lines through points: (class, dashed, points) each; dashed ones have no dots."""
    marks: list[str] = []
    for kind, dashed, points in series:
        path = " ".join(f"{at_x(x, point.x):.1f},{at_y(y, point.y):.1f}" for point in points)
        marks.append(f'<polyline class="{kind}{" dashed" if dashed else ""}" points="{path}"/>')
        marks += [] if dashed else [dot(x, y, point) for point in points]
    return plotted(title, x, y, marks)


def at_x(axis: Axis, value: float) -> float:
    """Where a value stands, from left to right."""
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def at_y(axis: Axis, value: float) -> float:
    """Where a value stands, from the top down."""
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def dot(x: Axis, y: Axis, point: Point) -> str:
    """A point, with its text on hover."""
    title = f"<title>{escape(point.text)}</title>"
    return (
        f'<circle class="{point.kind}" cx="{at_x(x, point.x):.1f}" cy="{at_y(y, point.y):.1f}" r="4">{title}</circle>'
    )


def plotted(
    title: str,
    x: Axis,
    y: Axis,
    marks: Iterable[str],
    x_ticks: Sequence[float] | None = None,
    text: str = "",
    group: bool = False,
) -> str:
    """Marks in a frame with two axes."""
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [box("frame", LEFT, TOP, right - LEFT, base - TOP)]
    for value in x.ticks() if x_ticks is None else x_ticks:
        at = at_x(x, value)
        parts += [line("tick", at, base, at, base + 4), words("small middle", at, base + 17, x.write(value))]
    for value in y.ticks():
        at = at_y(y, value)
        parts += [line("tick", LEFT - 4, at, LEFT, at), words("small end", LEFT - 7, at + 4, y.write(value))]
    parts += [words("middle", (LEFT + right) / 2, HEIGHT - 6, x.title), words("", 2, 13, y.title)]
    over = f"{y.title} over {x.title}" if x.title else y.title
    return picture(title, text or f"{over}.", HEIGHT, [*parts, *marks], group)
