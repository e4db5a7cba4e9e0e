"""The HTML report: it stands alone, it shows every record, and nothing in a record can break it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from advisor.charts import chart, plots
from advisor.charts.axes import Axis
from calibrate.report import NOTHING, report_html
from tests.calibrate import made_up
from tests.calibrate.made_up import CPU, figures, gpu, record

METHODS = ("full", "lora", "dora", "qlora", "qdora")
RECORDS = [
    record(
        method,
        seq_len=seq_len,
        measured=figures(1.0 + number / 10, 0.1 * seq_len / 64),
        predicted=figures(1.01 + number / 10, 0.11 * seq_len / 64),
    )
    for number, method in enumerate(METHODS)
    for seq_len in (64, 128, 256)
]


class Tags(HTMLParser):
    """Notes every tag, and the attributes that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]


def tags(page: str) -> Tags:
    found = Tags()
    found.feed(page)
    return found


def pictures(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_it_stands_alone() -> None:
    page = report_html(RECORDS)
    found = tags(page)
    assert found.links == []
    assert not {"script", "link", "iframe", "img"} & set(found.tags)
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_scatters_residuals_and_curves() -> None:
    """Memory and time twice each, and one picture of step times over tokens."""
    found = pictures(report_html(RECORDS))
    assert len(found) == 5
    assert [len(one.findall("circle")) for one in found] == [15] * 5
    assert len(found[4].findall("polyline")) == 10  # five measured, five predicted


def test_every_dot_says_what_it_is_and_lies_in_the_frame() -> None:
    for picture in pictures(report_html(RECORDS)):
        for dot in picture.findall("circle"):
            assert re.match(r"tiny \w+ 1x\d+", dot.findtext("title") or "")
            assert plots.LEFT <= float(dot.get("cx", "-1")) <= chart.WIDTH - plots.RIGHT
            assert plots.TOP <= float(dot.get("cy", "-1")) <= plots.HEIGHT - plots.BOTTOM


def test_what_is_predicted_too_low_lies_above_the_line() -> None:
    page = report_html([record(predicted=figures(1.0), measured=figures(4.0)), record("full")])
    dots = {dot.get("class"): dot for dot in pictures(page)[0].findall("circle")}
    x, y = (float(dots["lora"].get(name, "0")) for name in ("cx", "cy"))
    on_the_line = (
        plots.HEIGHT
        - plots.BOTTOM
        - (x - plots.LEFT) / (chart.WIDTH - plots.LEFT - plots.RIGHT) * (plots.HEIGHT - plots.TOP - plots.BOTTOM)
    )
    assert y < on_the_line - 20


def test_without_records_it_is_one_sentence() -> None:
    page = report_html([])
    assert NOTHING in page
    assert tags(page).tags.count("p") == 1
    assert pictures(page) == []


def test_devices_are_kept_apart() -> None:
    page = report_html([record(), record(device=gpu())])
    assert re.findall("<h2>(.*?)</h2>", page) == [CPU.signature, gpu().signature]
    assert len(pictures(page)) == 8


def test_a_name_cannot_become_markup() -> None:
    page = report_html([record(model="<script>alert(1)</script>")])
    assert "script" not in tags(page).tags
    assert "&lt;script&gt;" in page
    assert pictures(page)


def test_failures_and_marks_are_shown() -> None:
    worst = record("full", outcome="out_of_memory", verdict="fits")
    noisy = record(run=made_up.run(cpu_share=0.5))
    page = report_html([worst, noisy])
    assert "tiny full 1x64 c ran out of memory although it was predicted to fit" in page
    assert '<tr class="bad">' in page
    assert "the step got only 50% of its cores" in page


def test_without_predicted_times_there_are_none() -> None:
    rows = [record(method, seq_len=s, predicted=figures(1.0, None)) for method in METHODS for s in (64, 128)]
    found = pictures(report_html(rows))
    assert len(found) == 3  # two of memory, and the measured curves
    assert len(found[2].findall("polyline")) == 5


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0.1, 1000.0, True),
        (0.30, 0.36, True),
        (1.0, 1.0000001, True),
        (2e-3, 3e-3, True),
        (1e6, 1e12, True),
        (-0.05, 0.05, False),
        (-1e-9, 1e-9, False),
        (0.0, 7.0, False),
        (-300.0, 20.0, False),
    ],
)
def test_ticks_are_few_and_inside(low: float, high: float, log: bool) -> None:
    axis = Axis(low, high, log, "", str)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 13
    air = 1e-6 * (high - low)
    assert all(low - air <= tick <= high + air for tick in ticks)
    assert all(-1e-6 <= axis.share(tick) <= 1 + 1e-6 for tick in ticks)
