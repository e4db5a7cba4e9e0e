"""The memory of every method against the card: one bar each, of the terms of its peak."""

from __future__ import annotations

from advisor.advice.sentence import gpu_text
from advisor.answer import Advice, Candidate, Plan, Verdict
from advisor.charts.bars import Bar, Limit, Segment, bars
from advisor.charts.chart import Chart
from advisor.charts.parts import GROUPS, grouped, shown
from advisor.rules.wording import DISPLAY, fits_text
from advisor.specs import Estimate, MemoryEstimate
from advisor.units import GIB, format_gib

_BEYOND = 2.0
"""How many cards wide the axis may be, where that shows every method that fits."""
MARKS: tuple[tuple[str, str], ...] = (("whisker", "low to high"), ("least", "least the method needs"))
HATCHES: tuple[tuple[Verdict, str], ...] = (("tight", "not sure to fit"), ("does_not_fit", "does not fit"))


def memory_chart(advice: Advice) -> Chart:
    """Bars of what must fit, against the card's line, with the least that each method needs."""
    rows, card = advice.candidates, advice.gpu.memory_bytes
    groups = [grouped((term.name, term.bytes) for term in row.memory.terms) for row in rows]
    used = [kind for kind in GROUPS if any(one[kind] for one in groups)]
    legend = [(kind, GROUPS[kind][0]) for kind in used]
    legend += [*MARKS, *hatches({row.verdict for row in rows})]
    highs = [row.memory.needed_bytes.high for row in rows]
    title = _title(advice)
    return Chart(
        name="memory",
        title=title,
        svg=bars(
            title,
            " ".join(f"{_method(advice, row)}: {row_text(advice, row)}." for row in rows),
            [_bar(advice, row, one) for row, one in zip(rows, groups, strict=True)],
            (axis_end(highs, card) / GIB, "GiB of one card" if advice.gpu.gpus > 1 else "GiB", "{:g}".format),
            Limit(card / GIB, f"the card: {format_gib(card)} GiB"),
            legend,
        ),
        head=("method", "verdict", *(f"{GROUPS[kind][0]}, GiB" for kind in used), "likely", "low", "high", "least"),
        rows=tuple(_cells(advice, row, [one[kind] for kind in used]) for row, one in zip(rows, groups, strict=True)),
    )


def hatches(verdicts: set[Verdict]) -> list[tuple[str, str]]:
    """What the legend says of the verdicts that are there."""
    return [one for one in HATCHES if one[0] in verdicts]


def axis_end(highs: list[float], card: float) -> float:
    """Where the axis of memory ends: what needs many cards' memory would leave no width for what fits."""
    return min(max(*highs, 1.05 * card), max(_BEYOND * card, 1.25 * min(highs)))


def row_text(advice: Advice, row: Plan) -> str:
    """'does not fit; likely 26.8 GiB, 26.1 to 27.9'."""
    needed = row.memory.needed_bytes
    span = f"{format_gib(needed.low)} to {format_gib(needed.high)}"
    return f"{verdict_text(advice, row)}; likely {format_gib(needed.likely)} GiB, {span}"


def verdict_text(advice: Advice, row: Plan) -> str:
    """The verdict in words."""
    return fits_text(row, advice.gpu.memory_bytes)


def gib(size: float) -> str:
    """GiB with three decimals, for tables."""
    return f"{size / GIB:,.3f}"


def _title(advice: Advice) -> str:
    card = f"{gpu_text(advice)} with {format_gib(advice.gpu.memory_bytes)} GiB"
    if advice.recommendation is None:
        return f"Memory that each method needs on {card}: none fits."
    chosen = advice.candidate(advice.recommendation.method)
    likely = f"{DISPLAY[chosen.method]} needs {format_gib(chosen.memory.needed_bytes.likely)} GiB"
    return f"Memory that each method needs on {card}: {likely} and {verdict_text(advice, chosen)}."


def _method(advice: Advice, row: Candidate) -> str:
    chosen = advice.recommendation is not None and advice.recommendation.method == row.method
    return f"{DISPLAY[row.method]} (recommended)" if chosen else DISPLAY[row.method]


def _bar(advice: Advice, row: Candidate, groups: dict[str, int]) -> Bar:
    chosen = advice.recommendation is not None and advice.recommendation.method == row.method
    bar = _plain_bar(f"{'★ ' if chosen else ''}{DISPLAY[row.method]}: {verdict_text(advice, row)}", row.memory, groups)
    least = row.least.memory.needed_bytes.likely / GIB
    return bar._replace(verdict=row.verdict, least=least, strong=chosen)


def _plain_bar(name: str, memory: MemoryEstimate, groups: dict[str, int]) -> Bar:
    needed = memory.needed_bytes
    segments = tuple(
        Segment(kind, size / GIB, f"{GROUPS[kind][0]}: {gib(groups[kind])} GiB")
        for kind, size in shown(groups).items()
        if size
    )
    figures = f"{format_gib(needed.likely)} GiB ({format_gib(needed.low)}–{format_gib(needed.high)})"
    return Bar(name, figures, segments, needed.low / GIB, needed.high / GIB, "fits")


def estimate_chart(found: Estimate) -> Chart:
    """The terms of one estimate, whose card it does not name."""
    memory, method = found.memory, DISPLAY[found.recipe.method]
    groups = grouped((term.name, term.bytes) for term in memory.terms)
    title = f"Memory that {method} needs: {format_gib(memory.needed_bytes.likely)} GiB."
    legend = [(kind, GROUPS[kind][0]) for kind, size in groups.items() if size]
    axis = (1.05 * memory.needed_bytes.high / GIB, "GiB", "{:g}".format)
    svg = bars(title, title, [_plain_bar(method, memory, groups)], axis, legend=[*legend, MARKS[0]])
    rows = tuple((term.name.value, gib(term.bytes), f"{term.bytes:,}") for term in memory.terms)
    return Chart("memory", title, svg, ("term", "GiB", "bytes"), rows)


def _cells(advice: Advice, row: Candidate, sizes: list[int]) -> tuple[str, ...]:
    needed, least = row.memory.needed_bytes, row.least.memory.needed_bytes.likely
    totals = (needed.likely, needed.low, needed.high, least)
    return (_method(advice, row), verdict_text(advice, row), *map(gib, (*sizes, *totals)))
