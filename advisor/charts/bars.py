"""Bars that lie under their labels: their parts one after the other, a whisker from low to high, and a limit's line.

A label takes a line of its own, so that a bar has all of a phone's width. What reaches beyond the axis ends in an
arrow. What does not fit is hatched both ways, what only just fits one way: told apart without a color.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from advisor.answer import Verdict
from advisor.charts.axes import Axis, Format
from advisor.charts.chart import WIDTH, box, hatched, line, picture, polygon, words

EDGE, ROW, BAR = 6, 46, 17
"""Units at either side; of a row; of its bar."""
_LETTER = 6.3
"""About the width of a letter of 12 units."""
_WIDE = 3.0
"""Units of a part that a gap beside it does not swallow."""


class Segment(NamedTuple):
    """A part of a bar: its class, its length, and the text shown on hover."""

    kind: str
    length: float
    text: str


class Bar(NamedTuple):
    """One row: lengths in the axis' unit; no `segments` where there is nothing to draw."""

    name: str
    figures: str  # at the right end of its label
    segments: tuple[Segment, ...]
    low: float
    high: float
    verdict: Verdict
    least: float = 0.0  # marked below the bar; 0 for none
    strong: bool = False


class Limit(NamedTuple):
    """A line across all bars."""

    value: float
    text: str


def bars(
    title: str,
    text: str,
    rows: Sequence[Bar],
    axis: tuple[float, str, Format],
    limit: Limit | None = None,
    legend: Sequence[tuple[str, str]] = (),
) -> str:
    """The picture; `axis`: where it ends, its title, and how to write a value. `legend`: (class, name) of the parts."""
    end, name, write = axis
    x = Axis(0.0, end, False, name, write)
    top = 24.0 if limit is not None else 6.0
    base = top + ROW * len(rows)
    marks = [mark for number, row in enumerate(rows) for mark in _bar(x, row, top + ROW * number + 19)]
    marks += [] if limit is None else _limit(x, limit, base)
    marks += [mark for number, row in enumerate(rows) for mark in _label(row, top + ROW * number + 13)]
    marks += [line("tick", EDGE, base, WIDTH - EDGE, base)]
    for value in x.ticks():
        at = _x(x, value)
        side = "end" if at > WIDTH - 20 else "middle" if at > 20 else ""
        marks += [line("tick", at, base, at, base + 4), words(f"small {side}".strip(), at, base + 16, write(value))]
    marks.append(words("small middle", WIDTH / 2, base + 32, name))
    signs, bottom = legend_of(legend, base + 44)
    return picture(title, text, bottom, [*marks, *signs])


def _x(axis: Axis, value: float) -> float:
    return EDGE + min(1.0, max(0.0, axis.share(value))) * (WIDTH - 2 * EDGE)


def _label(row: Bar, y: float) -> Iterator[str]:
    """Name and figures, readable across a line."""
    strong = " strong" if row.strong else ""
    yield words(f"halo{strong}", EDGE, y, row.name)
    yield words(f"halo end{strong}", WIDTH - EDGE, y, row.figures)


def _bar(x: Axis, row: Bar, y: float) -> Iterator[str]:
    """Parts, hatch, whisker and marks of one row."""
    if not row.segments:
        return
    at, before = 0.0, 0.0
    gaps = []
    for one in row.segments:
        left, right = _x(x, at), _x(x, at + one.length)
        if right > left:
            yield box(f"part {one.kind}", left, y, right - left, BAR, one.text)
            if min(before, right - left) >= _WIDE:
                gaps.append(line("gap", left, y, left, y + BAR))
            before = right - left
        at += one.length
    yield from gaps
    if row.verdict != "fits":
        crossed = row.verdict == "does_not_fit"
        yield hatched(EDGE, y, _x(x, at) - EDGE, BAR, 7.0 if crossed else 14.0, crossed)
    yield from _whisker(x, row, y + BAR / 2)
    if at > x.high or row.high > x.high:
        tip = WIDTH - 0.5
        yield polygon("mark", [(tip - 9, y - 1), (tip, y + BAR / 2), (tip - 9, y + BAR + 1)], "goes on")
    if 0 < row.least <= x.high:
        tip = _x(x, row.least)
        yield polygon("mark", [(tip - 4.5, y + BAR + 8), (tip, y + BAR + 1), (tip + 4.5, y + BAR + 8)], "the least")


def _whisker(x: Axis, row: Bar, y: float) -> Iterator[str]:
    """From low to high, with a bar's end where the axis holds it."""
    if row.low >= x.high or row.low == row.high:
        return
    left, right = _x(x, row.low), _x(x, row.high)
    ends = [left] if row.high > x.high else [left, right]
    strokes = [(left, y, right, y), *((at, y - 5, at, y + 5) for at in ends)]
    for kind in ("halo-line", "whisker"):
        for x1, y1, x2, y2 in strokes:
            yield line(kind, x1, y1, x2, y2)


def _limit(x: Axis, limit: Limit, base: float) -> list[str]:
    at, half = _x(x, limit.value), len(limit.text) * _LETTER / 2
    side, place = "middle", at
    if at < half + EDGE:
        side, place = "", float(EDGE)
    elif at > WIDTH - half - EDGE:
        side, place = "end", float(WIDTH - EDGE)
    return [line("card", at, 16, at, base), words(f"small {side}".strip(), place, 11, limit.text)]


def legend_of(legend: Sequence[tuple[str, str]], top: float) -> tuple[list[str], float]:
    """A sign and a name each, in as many lines as they take; and where they end."""
    marks, x, y = [], float(EDGE), top
    for kind, name in legend:
        width = 18 + len(name) * 6 + 8
        if x + width > WIDTH and x > EDGE:
            x, y = float(EDGE), y + 17
        marks += [*_sign(kind, x, y), words("small", x + 17, y + 9.5, name)]
        x += width
    return marks, y + 17 if legend else top


def _sign(kind: str, x: float, y: float) -> list[str]:
    """What stands for a class in the legend."""
    if kind == "whisker":
        return [
            line(kind, x, y + 5.5, x + 13, y + 5.5),
            line(kind, x, y + 1, x, y + 10),
            line(kind, x + 13, y + 1, x + 13, y + 10),
        ]
    if kind == "least":
        return [polygon("mark", [(x + 2, y + 9), (x + 6.5, y + 2), (x + 11, y + 9)])]
    if kind in ("tight", "does_not_fit"):
        crossed = kind == "does_not_fit"
        return [box("part outside", x, y, 13, 11), hatched(x, y, 13, 11, 5.0 if crossed else 8.0, crossed)]
    return [box(f"part {kind}", x, y, 13, 11)]
