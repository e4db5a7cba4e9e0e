"""The benchmark of data sets runs, and its reader agrees with the tokenizer alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data_set import compare, make_files


@pytest.mark.process
def test_a_small_file_is_read_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tokenizers")
    make_files(tmp_path, 3000)
    compare(tmp_path)  # whether it is fast says nothing here: so few rows take less than the start
    said = capsys.readouterr().out
    assert said.startswith("3,000 rows, ")
    assert "percentiles off by 0.00% at most" in said
