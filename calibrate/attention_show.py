"""Attention by kernel for people: estimate beside measured, and what PyTorch refused. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple, TextIO

from rich.text import Text

from advisor.costs.roofline import Roofline
from advisor.render.console import console_for, new_table, print_table, say
from advisor.units import format_seconds
from calibrate.attention_rates import AttentionSample, attention_times
from calibrate.burst_record import DeviceFacts
from calibrate.fit import sample_seconds
from calibrate.predict import Speed
from calibrate.records_show import percent

CELLS = ("kernel", "mask", "dtype", "forward", "estimate", "error", "backward", "estimate", "error")
SHAPE = 3
"""The column before which the page has the shapes, one row for each; the terminal has their sums."""


class Pair(NamedTuple):
    """Seconds of a call, or of several."""

    measured_s: float = 0.0
    estimate_s: float = 0.0

    def plus(self, other: Pair) -> Pair:
        """The sums."""
        return Pair(self.measured_s + other.measured_s, self.estimate_s + other.estimate_s)

    @property
    def cells(self) -> tuple[str, str, str]:
        """Measured, estimate, error."""
        if not self.measured_s:
            return "-", "-", "-"
        error = self.estimate_s / self.measured_s - 1
        return format_seconds(self.measured_s), format_seconds(self.estimate_s), percent(error)


class Row(NamedTuple):
    """Forward and backward of one kernel, with or without a mask, in one dtype; `shape` is '' for a sum of several."""

    kernel: str
    masked: bool
    dtype: str
    shape: str
    forward: Pair
    backward: Pair

    @property
    def cells(self) -> tuple[str, ...]:
        """As CELLS."""
        return (self.kernel, "yes" if self.masked else "no", self.dtype, *self.forward.cells, *self.backward.cells)


class AttentionTable(NamedTuple):
    """The attention of one device: a row for each shape that ran, and a line for each reason of a refusal."""

    title: str
    rows: tuple[Row, ...]
    refusals: tuple[str, ...]

    @property
    def sums(self) -> list[Row]:
        """The rows over all shapes."""
        found: dict[tuple[str, bool, str], Row] = {}
        for row in self.rows:
            key = row[:3]
            before = found.get(key, Row(*key, "", Pair(), Pair()))
            found[key] = before._replace(
                forward=before.forward.plus(row.forward), backward=before.backward.plus(row.backward)
            )
        return list(found.values())


def attention_table(samples: Sequence[AttentionSample], device: DeviceFacts, speed: Speed) -> AttentionTable:
    """Estimates of a speed beside the times; a time in which the card waited for the host counts as none."""
    roofline, rows = Roofline(speed.card, speed.profile), []
    times = attention_times(samples, device)
    for forward, backward in zip(times[::2], times[1::2], strict=True):
        kernel, masked, dtype, size = forward.case
        pairs = [
            Pair() if one.host_bound else Pair(one.seconds, sample_seconds(one, roofline))
            for one in (forward, backward)
        ]
        rows.append(Row(kernel, masked, dtype, "x".join(map(str, size)), *pairs))
    title = f"attention by kernel, {device.signature}; estimate: {speed.source}"
    return AttentionTable(title, tuple(rows), tuple(_refusals(samples)))


def _refusals(samples: Iterable[AttentionSample]) -> Iterator[str]:
    """'efficient refused 48 of 48: why' for each reason."""
    counts: dict[tuple[str, str], int] = {}
    every: dict[str, int] = {}
    for one in samples:
        every[one.kernel] = every.get(one.kernel, 0) + 1
        if one.refused:
            counts[one.kernel, one.refused] = counts.get((one.kernel, one.refused), 0) + 1
    for (kernel, reason), count in counts.items():
        yield f"{kernel}: {count} of {every[kernel]} cases refused: {reason}"


def print_attention(table: AttentionTable, file: TextIO) -> None:
    """The sums over all shapes, and the refusals."""
    console = console_for(file)
    say(console, f"{table.title}; sums over {len({row.shape for row in table.rows})} shapes", style="bold")
    shown = new_table()
    for index, name in enumerate(CELLS):
        shown.add_column(name, justify="right" if index >= SHAPE else "left", no_wrap=True)
    for row in table.sums:
        shown.add_row(*(Text(cell) for cell in row.cells))
    print_table(file, shown)
    for line in table.refusals:
        say(console, f"- {line}", indent=2)
    console.print()


def attention_html(table: AttentionTable) -> str:
    """Every shape, and the refusals."""
    heads = (*CELLS[:SHAPE], "shape", *CELLS[SHAPE:])
    rows = "".join(_tags("td", (*row.cells[:SHAPE], row.shape, *row.cells[SHAPE:])) for row in table.rows)
    lines = "".join(f"<li>{escape(line)}</li>" for line in table.refusals)
    return (
        f"<h2>{escape(table.title)}</h2>\n<p>Shapes: batch x heads x length x width of a head.</p>\n"
        f"<table>{_tags('th', heads)}{rows}</table>\n" + (f"<ul>{lines}</ul>\n" if lines else "")
    )


def _tags(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
