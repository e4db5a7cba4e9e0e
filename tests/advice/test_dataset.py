"""Data files: rows counted, lengths estimated, everything else refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from advisor.advice.dataset import DataSummary, summarize
from advisor.errors import BadValue, SourceUnavailable


def test_jsonl_counts_all_texts_of_a_row(tmp_path: Path) -> None:
    rows: list[object] = [{"text": "x" * 40}, {"messages": [{"content": "y" * 70}, {"content": "z" * 10}]}, "w" * 5]
    path = tmp_path / "data.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    assert summarize(str(path)) == DataSummary(rows=3, mean_tokens=11, longest_tokens=20)


def test_txt_counts_lines(tmp_path: Path) -> None:
    path = tmp_path / "DATA.TXT"
    path.write_bytes(b"a" * 400 + b"\n\n" + b"\xff" * 8 + b"\n")
    assert summarize(str(path)) == DataSummary(rows=2, mean_tokens=51, longest_tokens=100)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data.csv", "a,b", r"\.jsonl or \.txt"),
        ("empty.txt", "\n \n", "no rows"),
        ("bad.jsonl", '{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("deep.jsonl", "[" * 200_000, "line 1 is not JSON"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(BadValue, match=words):
        summarize(str(path))


def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="No such file"):
        summarize(str(tmp_path / "none.jsonl"))


def test_what_is_no_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    (tmp_path / "folder.jsonl").mkdir()
    for path in (pipe, tmp_path / "folder.jsonl"):
        with pytest.raises(BadValue, match="not a regular file"):
            summarize(str(path))
