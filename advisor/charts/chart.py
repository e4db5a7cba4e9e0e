"""A picture with its title and its table; and the frame of every picture."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NamedTuple
from zlib import crc32

WIDTH = 360
"""Of every picture, in its own units: about the pixels of a phone, where a letter of 12 units can still be read."""


class Chart(NamedTuple):
    """One picture, and the same numbers as a table."""

    name: str  # memory, time, step, frontier or scaling; in a report what it plots
    title: str  # one sentence that says what it shows
    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # as wide as `head`

    def html(self) -> str:
        """A figure: title, picture, and the table folded beneath it. It looks as it should beside `style.STYLE`."""
        title = escape(self.title)
        return (
            f'<figure class="advisor-chart advisor-chart-{escape(self.name)}"><figcaption>{title}</figcaption>'
            f"{self.svg}<details><summary>The same numbers as a table</summary>"
            f'<div class="scrolled" role="region" aria-label="{title}" tabindex="0">{table(self.head, self.rows)}</div>'
            "</details></figure>\n"
        )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """An HTML table; the first cell of a row is its heading."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(_row(*row) for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _row(first: str, *cells: str) -> str:
    return f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def picture(title: str, text: str, height: float, marks: Iterable[str], group: bool = False) -> str:
    """An SVG of so many units, as wide as the page lets it be; `text` says to who cannot see it what is in it.

    `group`: something in it can be operated, which a single image would hide.
    """
    inner = "".join(marks)
    mark = f"c{crc32(f'{title}{text}{inner}'.encode()):08x}"  # alike pictures may share it
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="{"group" if group else "img"}"'
        f' aria-labelledby="{mark}-title" aria-describedby="{mark}-text">'
        f'<title id="{mark}-title">{escape(title)}</title>'
        f'<desc id="{mark}-text">{escape(text)}</desc>{inner}</svg>'
    )


def words(kind: str, x: float, y: float, text: str) -> str:
    """A line of text; `kind`: its classes, among them 'middle' or 'end' for what stands at x."""
    given = f' class="{kind}"' if kind else ""
    return f'<text{given} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def box(kind: str, x: float, y: float, width: float, height: float, hover: str = "") -> str:
    """A rectangle, with what is shown on hover."""
    shape = f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}"'
    return f"{shape}><title>{escape(hover)}</title></rect>" if hover else f"{shape}/>"


def polygon(kind: str, points: Iterable[tuple[float, float]], hover: str = "") -> str:
    """A closed shape."""
    shape = f'<polygon class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"'
    return f"{shape}><title>{escape(hover)}</title></polygon>" if hover else f"{shape}/>"


def hatched(x: float, y: float, width: float, height: float, apart: float, crossed: bool) -> str:
    """Slanted lines over a rectangle, and those that cross them; lines of its own, for a pattern needs an id."""
    starts = [apart * n - height for n in range(1, int((width + height) / apart) + 1)]
    parts = [_slanted(x, y, width, height, start, False) for start in starts]
    parts += [_slanted(x, y, width, height, start, True) for start in starts] if crossed else []
    return f'<path class="hatch" d="{"".join(parts)}"/>'


def _slanted(x: float, y: float, width: float, height: float, start: float, mirrored: bool) -> str:
    """The part inside the rectangle of a line that rises by its height, from `start` on its lower edge."""
    begin, end = max(0.0, start), min(width, start + height)
    if end - begin < 0.5:
        return ""
    low, high = begin - start, end - start
    if mirrored:
        return f"M{x + begin:.1f} {y + low:.1f}L{x + end:.1f} {y + high:.1f}"
    return f"M{x + begin:.1f} {y + height - low:.1f}L{x + end:.1f} {y + height - high:.1f}"
