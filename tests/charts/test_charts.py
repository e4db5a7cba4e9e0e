"""The pictures of an answer: which there are, that they hold the answer's numbers, and that anyone can read them."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from advisor import advise
from advisor.answer import Advice
from advisor.charts import STYLE, Chart, charts_of
from advisor.charts.bars import EDGE
from advisor.charts.chart import WIDTH
from advisor.charts.memory import axis_end
from advisor.charts.parts import GROUPS, grouped
from advisor.terms import TermName
from advisor.units import GIB
from tests.charts.answers import QUESTIONS, answer

NAMES = {
    "usual": "memory time step",
    "frontier": "memory time step frontier",
    "nothing fits": "memory step",
    "one method": "memory time step frontier",
    "only just": "memory time step",
    "eight cards": "memory time step frontier scaling",
    "copies": "memory time step frontier scaling",
    "tiny": "memory time step frontier",
    "no times": "memory step",
    "AMD": "memory time step frontier",
    "no times, several cards": "memory step scaling",
    "images": "memory time step",
    "evaluation": "memory time step frontier",
    "mixture": "memory time step frontier",
    "kernels": "memory time step frontier",
}
TAGS = {"svg", "title", "desc", "g", "rect", "line", "polyline", "polygon", "path", "circle", "text"}
LETTER = 7.2
"""Units of a letter, a generous mean."""


def chart(question: str, name: str) -> Chart:
    (found,) = (one for one in charts_of(answer(question)) if one.name == name)
    return found


def drawn(one: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(one.svg)


def column(one: Chart, head: str) -> list[str]:
    return [row[one.head.index(head)] for row in one.rows]


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_every_question_is_expected() -> None:
    assert set(NAMES) == set(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_has_the_pictures_that_it_has_data_for(question: str) -> None:
    assert " ".join(one.name for one in charts_of(answer(question))) == NAMES[question]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_picture_obeys_a_strict_policy_and_uses_only_known_classes(question: str) -> None:
    """No style attribute, script, link or font; every class is in STYLE; ids are those that are referred to."""
    for one in charts_of(answer(question)):
        picture = drawn(one)
        ids = [found.get("id") for found in picture.iter() if found.get("id")]
        assert ids == [picture.get("aria-labelledby"), picture.get("aria-describedby")]
        assert picture.get("role") == "img"
        assert picture.findtext("title") == one.title
        assert picture.findtext("desc")
        for element in picture.iter():
            assert element.tag in TAGS
            assert not {"style", "fill", "stroke", "href"} & set(element.attrib)
            assert not any(name.startswith("on") for name in element.attrib)
            for name in element.get("class", "").split():
                assert name in ("plan", "small") or re.search(rf"\.{name}\b", STYLE), name


@pytest.mark.parametrize("question", QUESTIONS)
def test_everything_lies_inside_and_texts_do_not_collide(question: str) -> None:
    for one in charts_of(answer(question)):
        picture = drawn(one)
        _, _, width, height = map(float, picture.get("viewBox", "").split())
        assert width == WIDTH
        for element in picture.iter():
            assert all(0 <= float(element.get(name, "0")) <= width for name in ("x", "x1", "x2", "cx"))
            assert all(0 <= float(element.get(name, "0")) <= height for name in ("y", "y1", "y2", "cy"))
        lines: dict[str, list[tuple[float, float]]] = {}
        for text in picture.iter("text"):
            kind, x = text.get("class", ""), float(text.get("x", "0"))
            long = len(text.text or "") * (LETTER if "strong" in kind else 6.4 if "small" not in kind else 5.9)
            left = x - long if "end" in kind else x - long / 2 if "middle" in kind else x
            lines.setdefault(text.get("y", ""), []).append((left, left + long))
        for spans in lines.values():
            spans.sort()
            assert all(before[1] <= after[0] + 1 for before, after in itertools.pairwise(spans)), spans


@pytest.mark.parametrize("question", QUESTIONS)
def test_numbers_have_fixed_decimals(question: str) -> None:
    """So that every interpreter writes the same bytes."""
    for one in charts_of(answer(question)):
        shapes = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|width|height)="([^"]*)"', one.svg.partition(">")[2])
        shapes += [part for points in re.findall(r'points="([^"]*)"', one.svg) for part in re.split("[ ,]", points)]
        assert len(shapes) > 20
        assert all(re.fullmatch(r"-?\d+\.\d", shape) for shape in shapes)
        assert [again.svg for again in charts_of(answer(question)) if again.name == one.name] == [one.svg]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_table_of_memory_is_the_answer(question: str) -> None:
    advice = answer(question)
    one = chart(question, "memory")
    groups = [name for name in one.head if name.removesuffix(", GiB") in {title for title, _ in GROUPS.values()}]
    for row, cells in zip(advice.candidates, one.rows, strict=True):
        shown = dict(zip(one.head, cells, strict=True))
        needed = row.memory.needed_bytes
        for name, value in (("likely", needed.likely), ("low", needed.low), ("high", needed.high)):
            assert shown[name] == f"{value / GIB:,.3f}"
        assert shown["least"] == f"{row.least.memory.needed_bytes.likely / GIB:,.3f}"
        total = sum(number(shown[name]) for name in groups)
        assert total == pytest.approx(needed.likely / GIB, abs=0.0006 * len(groups))


@pytest.mark.parametrize("question", ["usual", "eight cards", "one method"])
def test_bars_are_as_long_as_their_terms(question: str) -> None:
    """And the card's line, the whisker and the mark of the least stand where they belong."""
    advice = answer(question)
    picture = drawn(chart(question, "memory"))
    end = axis_end([row.memory.needed_bytes.high for row in advice.candidates], advice.gpu.memory_bytes)

    def at(size: float) -> float:
        return EDGE + min(1.0, size / end) * (WIDTH - 2 * EDGE)

    bars: dict[str, list[ElementTree.Element]] = {}
    for box in picture.iter("rect"):
        if box.find("title") is not None:
            bars.setdefault(box.get("y", ""), []).append(box)
    assert len(bars) == len(advice.candidates)
    for row, boxes in zip(advice.candidates, bars.values(), strict=True):
        sizes = grouped((term.name, term.bytes) for term in row.memory.terms)
        left = 0
        for box in boxes:
            size = sizes[box.get("class", "").split()[1]]
            assert float(box.get("x", "")) == pytest.approx(at(left), abs=0.06)
            assert float(box.get("width", "")) == pytest.approx(at(left + size) - at(left), abs=0.11)
            left += size
        last = boxes[-1]
        reached = float(last.get("x", "")) + float(last.get("width", ""))
        assert reached == pytest.approx(at(row.memory.needed_bytes.likely), abs=0.2)
    (card,) = (one for one in picture.iter("line") if one.get("class") == "card")
    assert float(card.get("x1", "")) == pytest.approx(at(advice.gpu.memory_bytes), abs=0.06)
    whiskers = {float(one.get("x1", "")) for one in picture.iter("line") if one.get("class") == "whisker"}
    lows = [at(row.memory.needed_bytes.low) for row in advice.candidates if row.memory.needed_bytes.low < end]
    assert all(any(abs(low - found) < 0.06 for found in whiskers) for low in lows)


@pytest.mark.parametrize("question", QUESTIONS)
def test_verdicts_are_words_and_patterns(question: str) -> None:
    """A hatch for each bar that does not surely fit, and one in the legend for each verdict; the word in its label."""
    advice = answer(question)
    picture = drawn(chart(question, "memory"))
    unsure = [row.verdict for row in advice.candidates if row.verdict != "fits"]
    hatches = [one for one in picture.iter("path") if one.get("class") == "hatch"]
    assert len(hatches) == len(unsure) + len(set(unsure))
    texts = [text.text or "" for text in picture.iter("text")]
    labels = [text for text in texts if ": " in text and "card:" not in text]
    assert len(labels) == len(advice.candidates)
    for row, label in zip(advice.candidates, labels, strict=True):
        assert ("does not fit" in label) == (row.verdict == "does_not_fit")
        assert label.endswith(": fits") == (row.verdict == "fits")
        chosen = advice.recommendation is not None and advice.recommendation.method == row.method
        assert label.startswith("★ ") == chosen


def test_what_is_beyond_the_axis_ends_in_an_arrow() -> None:
    arrows = [one for one in drawn(chart("usual", "memory")).iter("polygon") if one.findtext("title") == "goes on"]
    assert len(arrows) == 1  # full fine-tuning needs three of these cards


def test_times_are_the_answer_s() -> None:
    advice, one = answer("usual"), chart("usual", "time")
    for row, likely, high in zip(advice.candidates, column(one, "likely, s"), column(one, "high, s"), strict=True):
        runs = row.verdict != "does_not_fit"
        assert likely == (f"{row.time.total_s.likely:,.1f}" if row.time and runs else "-")
        assert high == (f"{row.time.total_s.high:,.1f}" if row.time and runs else "-")
    assert column(one, "likely, s").count("-") == 1


def test_scaling_has_a_row_for_each_number_of_cards() -> None:
    advice, one = answer("eight cards"), chart("eight cards", "scaling")
    assert [int(name.split()[0].replace(",", "")) for name in column(one, "cards")] == [x.gpus for x in advice.scaling]
    assert len(advice.scaling) > 3
    assert "Time" in one.title
    assert "Memory" in chart("no times, several cards", "scaling").title


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_step_s_peak_is_the_answer_s(question: str) -> None:
    """The highest part holds as much as the tensors among the terms, group by group."""
    advice = answer(question)
    if advice.recommendation is None:
        row = min(advice.candidates, key=lambda one: one.memory.needed_bytes.likely)
    else:
        row = advice.candidate(advice.recommendation.method)
    one = chart(question, "step")
    (cells,) = (cells for cells in one.rows if cells[0].endswith(" (peak)"))
    shown = dict(zip(one.head, cells, strict=True))
    for kind, size in grouped((term.name, term.bytes) for term in row.memory.terms).items():
        if kind != "outside" and f"{GROUPS[kind][0]}, GiB" in shown:
            assert shown[f"{GROUPS[kind][0]}, GiB"] == f"{size / GIB:,.3f}", kind
    moments = list(dict.fromkeys(cells[0].removesuffix(" (peak)") for cells in one.rows))
    evaluated = ["evaluation"] if row.recipe.eval_batch else []
    updated = [] if row.recipe.optimizer_in_backward else ["optimizer"]
    assert moments == ["load", "forward", "backward", *updated, *evaluated]


def test_every_term_is_in_one_group() -> None:
    members = [term for _, terms in GROUPS.values() for term in terms]
    assert sorted(members) == sorted(TermName)


def test_a_plan_of_the_frontier_can_be_asked_for() -> None:
    """Its flags, added to the question, give that plan."""
    advice = answer("frontier")
    points = [one for one in drawn(chart("frontier", "frontier")).iter("g") if one.get("class") == "plan"]
    assert len(points) == len(advice.frontier) > 1
    flags = points[0].get("data-flags", "").split(" --")
    knobs: dict[str, object] = {}
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition(" ")
        off = not value and name.startswith("no-")
        knobs[name.removeprefix("no-" if off else "").replace("-", "_")] = value or not off
    model, gpu, _ = QUESTIONS["frontier"]
    again = advise(model, gpu, examples=3000, **knobs)
    assert again.candidates[0].recipe == advice.frontier[0].recipe
    assert again.candidates[0].memory.needed_bytes == advice.frontier[0].memory.needed_bytes


def test_points_are_buttons_only_where_a_page_asks() -> None:
    plain, pressed = (charts_of(answer("frontier"), buttons=buttons) for buttons in (False, True))
    assert 'role="button"' not in "".join(one.svg for one in plain)
    assert [one.name for one, other in zip(plain, pressed, strict=True) if one != other] == ["frontier"]
    picture = drawn(next(one for one in pressed if one.name == "frontier"))
    assert picture.get("role") == "group"
    found = [one for one in picture.iter("g") if one.get("role") == "button"]
    assert len(found) == len(answer("frontier").frontier)
    assert all(one.get("tabindex") == "0" and one.get("aria-label") for one in found)


def test_a_card_that_no_list_has_gets_no_step() -> None:
    """Its kernels are not known, and another card's are not shown in their place."""
    advice = answer("usual")
    gpu = advice.gpu.model_copy(update={"asked": "my own", "cards": ("my own",)})
    assert "step" not in [one.name for one in charts_of(advice.model_copy(update={"gpu": gpu}))]
    smaller = answer("usual").workload.model_copy(update={"seq_len": 256, "mean_seq_len": 128})
    assert "step" not in [one.name for one in charts_of(advice.model_copy(update={"workload": smaller}))]


class Figure(HTMLParser):
    """The tags of a figure, which must close in the order in which they open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("question", ["usual", "eight cards"])
def test_a_figure_holds_the_picture_and_its_table(question: str) -> None:
    for one in charts_of(answer(question)):
        page = Figure()
        page.feed(one.html())
        assert page.open == []
        assert (page.seen[0], page.seen.count("svg"), page.seen.count("table")) == ("figure", 1, 1)
        assert page.seen.count("tr") == len(one.rows) + 1
        assert page.seen.count("td") + page.seen.count("th") == (len(one.rows) + 1) * len(one.head)


def test_names_cannot_become_markup() -> None:
    advice: Advice = answer("usual")
    hostile = '<script>alert(1)</script>"&'
    gpu = advice.gpu.model_copy(update={"cards": (hostile,)})
    text = "".join(one.html() for one in charts_of(advice.model_copy(update={"gpu": gpu})))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
