"""A data file on one screen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from advisor.advice.data import describe
from advisor.render.data import render_data
from advisor.render.progress import progress_of
from tests.dataset.files import written


def screen(path: Path, **knobs: Any) -> list[str]:
    out = io.StringIO()
    found = describe(str(path), knobs)
    render_data(found.file, found.summary, out)
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    "lengths",
    [[5], [1, 100_000], list(range(1, 400)), [3] * 99 + [9999], [200_000, 300_000]],
    ids=["one", "two", "many", "one long", "long"],
)
def test_it_fits_a_screen(tmp_path: Path, lengths: list[int]) -> None:
    lines = screen(written(tmp_path, "rows.jsonl", [{"text": "word " * length} for length in lengths]))
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 20
    assert "\x1b" not in "".join(lines)


def test_it_says_what_is_cut_padded_and_packed(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", [{"text": "word " * 100}] * 10 + [{"text": "word " * 500}] * 10)
    with path.open("a") as file:
        file.write("nonsense\n" * 7)
    lines = screen(path, seq_len=200, skip_bad_lines=True)
    text = " ".join(lines)
    assert lines[0] == "20 rows of text (jsonl, columns text)"
    assert "7 bad lines skipped: 21, 22, 23, 24, 25, ..." in text
    assert "10 rows are cut to 200 tokens, which loses " in text
    assert "2 steps" in text
    assert "padding by micro-batch: " in text
    assert "packed: " in text
    assert sum(line.rstrip().endswith("#") for line in lines) >= 2


def test_there_is_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of("reading") as progress:
        assert progress is None
    assert capsys.readouterr().err == ""


def test_a_bar_is_shown_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for wait_s, shown in ((1000.0, False), (0.0, True)):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("advisor.render.progress.SHOWN_AFTER_S", wait_s)
        with progress_of("reading") as progress:
            assert progress is not None
            progress(0, 100)
            progress(50, 100)
        assert ("reading" in terminal.getvalue()) == shown
