"""The page's Python gives the command line's bytes: some dozens of random questions under Node, where it is at hand."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from benchmarks.page_answers import answers_of_pyodide, differences, questions
from tests.page.test_without_packages import QUESTIONS

EVERY_COMBINATION = bool(os.environ.get("EVERY_COMBINATION"))
COUNT = 200 if EVERY_COMBINATION else 4
"""`benchmarks.page_answers` asks 500."""
pytestmark = [pytest.mark.process, pytest.mark.slow]
SMALL = ("tinyllama-1.1b", "llama-3.2-1b", "qwen3-0.6b", "pythia-410m")
"""A question about a large mixture takes a second."""
KINDS = ("usual", "a bad number", "an own config", "a configuration", "a name")


def test_random_questions_have_the_same_answer_in_webassembly(runtime: dict[str, bytes]) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node on this machine")
    asked = questions(COUNT, seed=5)
    for number, one in enumerate(asked):
        one["flags"]["model"] = SMALL[number % len(SMALL)]
    asked += [QUESTIONS[name] for name in (QUESTIONS if EVERY_COMBINATION else KINDS)]
    found = answers_of_pyodide(asked, runtime, limit_s=600)
    assert found["version"].startswith("3.14.")
    assert differences(asked, found) == []
    assert sum(text.startswith('{"ok":true') for text in found["answers"]) > len(asked) / 2
    assert json.loads(found["answers"][COUNT])["ok"]


def test_the_questions_are_the_same_each_time_and_differ() -> None:
    assert questions(40, seed=1) == questions(40, seed=1) != questions(40, seed=2)
    assert len({json.dumps(one) for one in questions(40, seed=1)}) == 40
