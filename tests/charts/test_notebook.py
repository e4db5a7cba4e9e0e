"""What a notebook shows of an answer: well-formed, with everything that a user typed as text, and loaded when shown."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from advisor import Recipe, Workload, estimate, find_gpus, find_model
from advisor.advice.check import check
from advisor.advice.sentence import verdict_line
from advisor.charts.notebook import html_of
from tests.charts.answers import answer

ROOT = Path(__file__).resolve().parent.parent.parent
EMPTY = {"br", "hr", "meta"}
HOSTILE = "<script>alert('x')</script><b>\"&amp;"


class Page(HTMLParser):
    """Tags, attributes and texts; tags must close in the order in which they open."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    assert not {"script", "iframe", "img", "link"} & set(page.tags)
    assert "style" not in page.attributes
    assert not any(name.startswith("on") for name in page.attributes)
    return page


@pytest.mark.parametrize("question", ["usual", "nothing fits", "eight cards", "no times"])
def test_an_answer(question: str) -> None:
    advice = answer(question)
    page = read(advice._repr_html_())
    assert verdict_line(advice) in page.texts
    assert page.tags.count("style") == 1
    assert page.tags.count("svg") == page.tags.count("figure") == page.tags.count("table") - 1
    for reason in advice.recommendation.reasons if advice.recommendation else advice.alternatives:
        assert reason.text in page.texts


def test_an_estimate() -> None:
    cost = estimate(find_model("qwen3-8b"), Recipe(method="dora"), Workload(examples=3000), find_gpus("rtx4090")[0])
    page = read(cost._repr_html_())
    for term in cost.memory.terms:
        assert f"{term.bytes:,}" in page.texts
    assert any(text.startswith("DoRA needs ") for text in page.texts)


def test_a_checked_file(tmp_path: Path) -> None:
    file = tmp_path / "a<b>.yaml"
    file.write_text("base_model: Qwen/Qwen2.5-0.5B\nadapter: lora\nlora_r: 8\nsequence_len: 512\nmicro_batch_size: 1\n")
    checked = check(str(file), "24GB")
    assert checked.advice is not None
    page = read(checked._repr_html_())
    assert any("a<b>.yaml" in text for text in page.texts)
    assert verdict_line(checked.advice) in page.texts


def test_what_a_user_typed_stays_text() -> None:
    advice = answer("usual")
    spoiled = advice.model_copy(
        update={
            "model": advice.model.model_copy(update={"name": HOSTILE}),
            "gpu": advice.gpu.model_copy(update={"cards": (HOSTILE,), "asked": HOSTILE}),
        }
    )
    page = read(spoiled._repr_html_())
    assert any(HOSTILE in text for text in page.texts)


def test_other_values_are_refused() -> None:
    with pytest.raises(TypeError, match="Workload is not shown as HTML"):
        html_of(Workload(examples=1))


@pytest.mark.process
def test_drawing_is_loaded_when_an_answer_is_shown_and_needs_no_terminal() -> None:
    code = """
import json, sys
from advisor import advise
advice = advise("qwen2.5-0.5b", "24GB", examples=3000, method="lora")
before = "advisor.charts" in sys.modules
advice._repr_html_()
loaded = {"advisor.charts", "pydantic", "click", "rich", "yaml"} & set(sys.modules)
print(json.dumps([before, sorted(loaded)]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, ["advisor.charts"]]
