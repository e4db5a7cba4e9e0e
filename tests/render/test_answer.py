"""What people read: 80 columns, no color needed, every name literal."""

from __future__ import annotations

import io
from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.answer import Advice
from advisor.export.run import TrainingFile
from advisor.render.answer import render, render_rule, verdict_line
from advisor.rules import RULES
from advisor.specs import METHODS
from tests.fakes import MODEL, FakeCatalog, card, fake_estimate


def ask(gib: float = 24, name: str = "small-1b", gpu: str = "card", **knobs: Any) -> Advice:
    model = MODEL.model_copy(update={"name": name})
    return advise(model, card(gib, gpu), catalog=FakeCatalog(), estimator=fake_estimate, **{"examples": 3000, **knobs})


def screen(answer: Advice, explain: bool = False) -> str:
    out = io.StringIO()
    render(answer, out, explain=explain)
    return out.getvalue()


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"gib": 2.5},
        {"gib": 1},
        {"method": "full", "gib": 80},
        {"examples": 200_000},
        {"examples": 10**12, "epochs": 10_000.0},
        {"gpus": 1000},
    ],
)
def test_eighty_columns_and_no_color(knobs: dict[str, Any], explain: bool) -> None:
    text = screen(ask(**knobs), explain)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_verdict_comes_first_with_numbers() -> None:
    answer = ask()
    first = " ".join(screen(answer).splitlines()[:2])
    assert first.startswith("Use DoRA r=16: small-1b (1.10B parameters) on card fits with ")
    assert "of 24.0 GiB and takes" in first
    assert "for 3,000 examples" in first
    assert verdict_line(ask(1)).startswith("Nothing fits: small-1b")
    assert verdict_line(ask(epochs=3.0)).endswith("3,000 examples x 3 epochs.")
    assert "on 4 x card" in verdict_line(ask(gpus=4))


def test_one_row_a_method() -> None:
    table = screen(ask(8)).partition("* recommended;")[0]
    rows = [line.split() for line in table.splitlines()[2:] if line.split()]
    starts = [row[1] if row[0] == "*" else row[0] for row in rows]
    assert [start for start in starts if start in METHODS] == list(METHODS)
    full = next(row for row in rows if row[0] == "full")
    assert full[3] == "no"
    assert full[5:8] == ["c", "-", "-"]
    dora = next(row for row in rows if row[:2] == ["*", "dora"])
    assert "yes" in dora
    assert dora[-3:] == ["recommended", "by", "ADV003"]


def test_reasons_warnings_and_notes_are_printed_with_their_source() -> None:
    answer = ask(dropout=0.1, gradient_checkpointing=False, micro_batch=1)
    text = " ".join(screen(answer).split())
    assert answer.recommendation is not None
    for reason in (*answer.recommendation.reasons, *answer.recommendation.warnings, *answer.notes):
        assert f"{reason.text} [{reason.code}]" in text
    assert "https://github.com/huggingface/peft/tree/" in text
    assert "fixed: examples, dropout, gradient-checkpointing, micro-batch" in text
    assert "rank 16" in text.partition("chosen: ")[2]


def test_explain_lists_every_byte() -> None:
    answer = ask()
    row = answer.candidate("dora")
    text = screen(answer, explain=True)
    for term in row.memory.terms:
        assert any(line.startswith(term.name) and f"{term.bytes:,}" in line for line in text.splitlines())
    assert f"peak at {row.memory.peak_at}" in text


def test_time_says_what_binds_and_what_it_costs() -> None:
    text = " ".join(screen(ask(price_per_hour=2.0)).split())
    assert "Time " in text
    assert " per micro-step, bound by " in text
    assert "; cost " in text
    assert "; cost " not in screen(ask())


def test_nothing_fits_prints_what_would_and_no_script() -> None:
    text = screen(ask(1))
    assert "What would fit" in text
    assert "Next:" not in text


def test_it_ends_with_one_line_that_says_what_is_next() -> None:
    *_, before, last = screen(ask()).splitlines()
    assert (before, last) == ("", "Next: add --write auto to write the file for transformers, --script to print it.")
    assert len(last) <= 80


def test_a_script_comes_as_it_is_at_the_end() -> None:
    out = io.StringIO()
    script = TrainingFile("train.py", "print('[red] :smile:')  # " + "wide " * 20 + "\n", "python train.py")
    render(ask(), out, script=script)
    assert out.getvalue().endswith(f"\nRun this (train.py)\n{script.text}")
    assert "Next:" not in out.getvalue()


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", ":smile:", "a[b]", "[link=http://x]y", "{0}%s\\n"])
def test_hostile_names_print_literally(name: str) -> None:
    text = screen(ask(name=name, gpu=name))
    assert name in text.splitlines()[0] + text.splitlines()[1]


def test_rules_are_explained_without_their_indentation() -> None:
    for rule in RULES:
        out = io.StringIO()
        render_rule(rule, out)
        text = out.getvalue()
        assert text.startswith(f"{rule.code}: {rule.title}")
        assert " ".join(rule.explanation.split()[-5:]) in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 80
