"""The memory of one step over time: what is alive while the model loads, and at each part's highest point."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum  # the same in every interpreter
from typing import NamedTuple

from advisor.answer import Advice, Candidate
from advisor.catalog import find_gpus
from advisor.charts.axes import Axis
from advisor.charts.bars import legend_of
from advisor.charts.chart import WIDTH, Chart, line, picture, polygon, words
from advisor.charts.memory import gib
from advisor.charts.parts import GROUPS, grouped, shown
from advisor.costs.curve import Phase, Stretch, step_curve
from advisor.errors import AdvisorError
from advisor.rules.wording import DISPLAY
from advisor.specs import GpuSpec, ModelSpec, Placement
from advisor.units import GIB, format_gib

LEFT, RIGHT, TOP, BASE = 42, 6, 30, 220
SHARES: dict[Phase, tuple[float, str]] = {
    "load": (0.12, "load"),
    "forward": (0.30, "forward"),
    "backward": (0.34, "backward"),
    "optimizer": (0.19, "optimizer"),
    "evaluation": (0.12, "eval"),
}
"""Of the width: parts in their order, not to the scale of time; and the name that fits there."""
_NARROWEST = 0.06
"""Of its phase, for a part that one of many layers stands beside."""
_THICK = 3.0
"""Units of an area that a gap below it does not swallow."""
_OUTSIDE = GROUPS["outside"][1]


class Placed(NamedTuple):
    """A stretch and where it is drawn."""

    stretch: Stretch
    left: float
    right: float


def step_chart(advice: Advice, row: Candidate) -> Chart | None:
    """The step of a row's plan; None where its parts are not known, as those of a model that was traced."""
    curve = _curve(advice, row)
    if not curve:
        return None
    highest = max(curve, key=lambda one: one.peak_bytes)
    alive = grouped(highest.highest.items())
    most = sorted((kind for kind in alive if alive[kind] > 0), key=lambda kind: -alive[kind])
    peak = f"{highest.phase}, {highest.what}" if highest.what else highest.phase
    title = (
        f"Memory of tensors over one step of {DISPLAY[row.method]}: at the peak of "
        f"{format_gib(highest.peak_bytes)} GiB ({peak}) {_listed(most[:3], alive)} are alive."
    )
    used = [kind for kind in GROUPS if any(grouped(one.highest.items())[kind] for one in curve)]
    text = " ".join(f"{one.phase}, {one.what}: {format_gib(one.peak_bytes)} GiB." for one in curve)
    return Chart("step", title, _drawn(title, text, curve, highest, used), *_table(curve, highest, used))


def _curve(advice: Advice, row: Candidate) -> tuple[Stretch, ...]:
    """The stretches; none where they do not add up to the answer, whose card may be one that no list has."""
    card = _card(advice)
    if card is None or not isinstance(advice.model, ModelSpec):
        return ()
    found = step_curve(advice.model, row.recipe, advice.workload, card, row.placement or Placement())
    tensors = sum(term.bytes for term in row.memory.terms if term.name not in _OUTSIDE)
    return found if max(one.peak_bytes for one in found) == tensors else ()


def _card(advice: Advice) -> GpuSpec | None:
    """The card that the verdict is about."""
    for name in (advice.gpu.asked, *advice.gpu.cards):
        try:
            cards = find_gpus(name)
        except AdvisorError:
            continue
        found = min(cards, key=lambda card: card.memory_bytes)
        if found.memory_bytes == advice.gpu.memory_bytes:
            return found
    return None


def _listed(kinds: Sequence[str], alive: dict[str, int]) -> str:
    """'base weights (5.3 GiB), logits and loss (4.1) and activations (2.0)'."""
    sizes = [format_gib(alive[kind]) for kind in kinds]
    sizes[0] += " GiB"
    first, *rest = (f"{GROUPS[kind][0]} ({size})" for kind, size in zip(kinds, sizes, strict=True))
    return first if not rest else f"{', '.join([first, *rest[:-1]])} and {rest[-1]}"


def _placed(curve: Sequence[Stretch]) -> list[Placed]:
    """Each phase in its share of the width, its parts by their layers."""
    phases = list(dict.fromkeys(one.phase for one in curve))
    unit = (WIDTH - LEFT - RIGHT) / fsum(SHARES[phase][0] for phase in phases)
    found, left = [], float(LEFT)
    for phase in phases:
        parts = [one for one in curve if one.phase == phase]
        layers = sum(one.layers for one in parts)
        widths = [max(float(one.layers), _NARROWEST * layers) for one in parts]
        width = SHARES[phase][0] * unit
        for one, own in zip(parts, widths, strict=True):
            right = left + own * width / fsum(widths)
            found.append(Placed(one, left, right))
            left = right
    return found


def _drawn(title: str, text: str, curve: Sequence[Stretch], highest: Stretch, used: Sequence[str]) -> str:
    y = Axis(0.0, 1.12 * highest.peak_bytes / GIB, False, "GiB", "{:g}".format)

    def at(size: float) -> float:
        return BASE - y.share(size / GIB) * (BASE - TOP)

    placed = _placed(curve)
    marks = [line("tick", LEFT, BASE, WIDTH - RIGHT, BASE), words("small", 2, TOP - 16, "GiB")]
    for value in y.ticks():
        high = at(value * GIB)
        marks += [line("tick", LEFT - 4, high, LEFT, high), words("small end", LEFT - 7, high + 4, y.write(value))]
    levels = [(shown(grouped(one.stretch.first.items())), shown(grouped(one.stretch.last.items()))) for one in placed]
    gaps: list[str] = []
    for number, kind in enumerate(used):
        below = used[:number]
        corners = [
            (place, at(sum(held[one] for one in below)), at(sum(held[one] for one in (*below, kind))))
            for one, pair in zip(placed, levels, strict=True)
            for place, held in zip((one.left, one.right), pair, strict=True)
        ]
        outline = [(x, high) for x, _, high in corners] + [(x, low) for x, low, _ in reversed(corners)]
        marks.append(polygon(f"part {kind}", outline, GROUPS[kind][0]))
        if below and any(low - high > _THICK for _, low, high in corners):
            edge = " ".join(f"{x:.1f},{low:.1f}" for x, low, _ in corners)
            gaps.append(f'<polyline class="gap" points="{edge}"/>')
    marks += [*gaps, *_phases(placed)]
    marks += _peak(next(one for one in placed if one.stretch is highest), at(highest.peak_bytes))
    signs, bottom = legend_of([(kind, GROUPS[kind][0]) for kind in used], BASE + 28)
    return picture(title, text, bottom, [*marks, *signs])


def _phases(placed: Sequence[Placed]) -> list[str]:
    """Their names below, and a line between two."""
    marks = []
    for phase in dict.fromkeys(one.stretch.phase for one in placed):
        these = [one for one in placed if one.stretch.phase == phase]
        left, right = these[0].left, these[-1].right
        marks += [words("small middle", (left + right) / 2, BASE + 15, SHARES[phase][1])]
        marks += [line("equal", right, TOP, right, BASE + 5)] if right < WIDTH - RIGHT - 1 else []
    return marks


def _peak(highest: Placed, y: float) -> list[str]:
    """A mark above the highest point, and how high it is."""
    one = highest.stretch
    at_first, at_last = sum(one.first.values()), sum(one.last.values())
    x = highest.left if at_first > at_last else highest.right
    if at_first == at_last:
        x = (highest.left + highest.right) / 2
    text = f"peak {format_gib(one.peak_bytes)} GiB"
    side, place = ("end", WIDTH - RIGHT) if x > WIDTH - 60 else ("middle", max(x, LEFT + 42.0))
    return [
        polygon("mark", [(x - 4.5, y - 9), (x + 4.5, y - 9), (x, y - 1)]),
        words(f"strong halo {side}", place, y - 13, text),
    ]


def _table(
    curve: Sequence[Stretch], highest: Stretch, used: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Head and rows: what is alive at the highest point of each part."""
    head = ("moment", "part", "layers", "GiB", *(f"{GROUPS[kind][0]}, GiB" for kind in used))
    rows = []
    for one in curve:
        groups = grouped(one.highest.items())
        name = f"{one.phase} (peak)" if one is highest else one.phase
        rows.append((name, one.what, f"{one.layers:,}", gib(one.peak_bytes), *(gib(groups[kind]) for kind in used)))
    return head, tuple(rows)
