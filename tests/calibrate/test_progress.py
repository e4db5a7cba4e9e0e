"""What a session tells on the way: line by line, or as one line that moves."""

from __future__ import annotations

import io
from typing import Any

import pytest

from calibrate import progress
from calibrate.cut import Whole
from calibrate.plan import Request, make_plan
from calibrate.progress import Audience, LiveAudience
from tests.calibrate import made_up
from tests.calibrate.made_up import TINY, machine
from tests.decoders.tiny import spec


def audience_on(kind: type[Audience], **outcome: Any) -> str:
    """What an audience of this kind writes about one burst."""
    plan = make_plan(Request((Whole("tiny", TINY, spec("llama")),), rows=((1, 64),), methods=("lora",)), machine())
    out = io.StringIO()
    with kind(False, 60.0, out) as audience:
        audience.begin(1, 12, plan.bursts[0])
        audience.hear({"warm_up_s": 0.2})
        audience.hear({"step_s": 0.1, "steps": 7})
        audience.end(1, 12, plan.bursts[0], made_up.record(**outcome), kept=False)
    return out.getvalue()


@pytest.mark.parametrize("kind", [Audience, LiveAudience])
def test_predicted_against_measured_as_they_come(kind: type[Audience]) -> None:
    text = audience_on(kind)
    assert "[ 1/12] tiny lora 1x64: peak 1.010 GiB, 1.000 measured (+1.00%); step 110 ms, 100 ms measured" in text


def test_the_moving_line_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    live = LiveAudience(False, 60.0, io.StringIO())
    live._doing = "[1/12] a model with a name that is far too long for this terminal"
    try:
        assert len(live.__rich__()) <= 36
    finally:
        live.stop()


def test_marks_and_the_worst_stand_in_the_line() -> None:
    assert "marked: busy CPU" in audience_on(Audience, run=made_up.run(cpu_share=0.5))
    assert "OUT OF MEMORY, though only 2.000 of 8.000 GiB predicted" in audience_on(Audience, outcome="out_of_memory")


def test_a_terminal_gets_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(progress.audience_for(False, 1.0)) is Audience
    monkeypatch.setattr(progress.sys, "stderr", Terminal())
    live = progress.audience_for(False, 1.0)
    live.stop()
    assert type(live) is LiveAudience


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True
