"""A data file reaches the answer: its form, its lengths, and how sure they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor import estimate, find_gpus
from advisor.advice.advise import advise
from advisor.advice.data import describe
from advisor.answer import Advice
from advisor.errors import AdvisorError, BadValue
from advisor.interval import Interval
from tests.dataset.files import ROWS, written

TEXTS = [{"text": "word " * (20 + 40 * (number % 10))} for number in range(200)]


def ask(path: Path, **knobs: Any) -> Advice:
    return advise("llama-3.2-1b", "rtx4090", data=str(path), **knobs)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return written(tmp_path, "rows.jsonl", TEXTS)


@pytest.mark.parametrize("form", ROWS)
def test_the_answer_names_the_file_and_its_form(tmp_path: Path, form: str) -> None:
    path = written(tmp_path, "rows.json", [ROWS[form]] * 30)
    answer = ask(path)
    assert answer.data_file is not None
    assert answer.data is not None
    assert (answer.data_file.path, answer.data_file.format, answer.data_file.form) == (str(path), "json", form)
    assert (answer.data.rows, answer.workload.examples) == (30, 30)
    assert Advice.model_validate_json(answer.model_dump_json()) == answer


def test_estimated_lengths_widen_memory_and_time(texts: Path) -> None:
    answer = ask(texts, method="lora", micro_batch=2)
    assert answer.data is not None
    stated = ask(
        texts,
        method="lora",
        micro_batch=2,
        gradient_checkpointing=answer.candidates[0].recipe.gradient_checkpointing,
        seq_len=answer.workload.seq_len,
        mean_seq_len=answer.workload.mean_seq_len,
    )
    wide, narrow = answer.candidates[0], stated.candidates[0]
    assert wide.recipe == narrow.recipe
    assert wide.memory.needed_bytes.likely == narrow.memory.needed_bytes.likely
    assert wide.memory.needed_bytes.low < narrow.memory.needed_bytes.low
    assert wide.memory.needed_bytes.high > narrow.memory.needed_bytes.high
    assert wide.time is not None
    assert narrow.time is not None
    assert wide.time.total_s.low < narrow.time.total_s.low
    assert wide.time.total_s.high > narrow.time.total_s.high


@pytest.mark.parametrize("knobs", [{}, {"packing": True}, {"gpus": 2}, {"seq_len": 100}])
def test_each_row_is_what_estimate_says(texts: Path, knobs: dict[str, Any]) -> None:
    answer = ask(texts, **knobs)
    (card,) = find_gpus("rtx4090")
    for row in answer.candidates:
        found = estimate(answer.model, row.recipe, answer.workload, card, row.placement)
        assert (row.memory, row.time) == (found.memory, found.time)


def test_the_summary_is_of_the_recommended_recipe(texts: Path) -> None:
    answer = ask(texts, seq_len=150)
    assert answer.recommendation is not None
    assert answer.data is not None
    row = answer.candidate(answer.recommendation.method)
    assert row.time is not None
    assert answer.data.micro_batch == row.recipe.micro_batch
    assert answer.data.steps == row.time.steps
    assert answer.data.rows_cut > 0
    assert answer.data.seq_len == 150
    said = " ".join(note.text for note in answer.notes)
    assert f"{answer.data.rows_cut:,} rows are cut to 150 tokens" in said
    assert "estimated from characters (no tokenizer of meta-llama/Llama-3.2-1B on this machine" in said


def test_a_tokenizer_makes_lengths_exact(texts: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"word": 0, "?": 1}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    answer = ask(texts, tokenizer=str(tmp_path))
    assert answer.data is not None
    assert answer.data.mean_tokens == Interval.exact(201)
    assert answer.workload.seq_len == 381
    assert answer.workload.ends is None
    assert answer.data.counted_by == f"counted by {tmp_path / 'tokenizer.json'}"
    assert dict(answer.data.percentiles)[50.0] == 181


def test_a_limit_that_is_only_likely_is_said(texts: Path) -> None:
    answer = ask(texts)
    said = " ".join(note.text for note in answer.notes)
    assert f"Rows are cut at {answer.workload.seq_len:,} tokens, the likely length of the longest" in said
    stated = ask(texts, seq_len=4000)
    assert any("No row is longer than 4,000 tokens" in note.text for note in stated.notes)


def test_packed_rows_are_said(texts: Path) -> None:
    answer = ask(texts, packing=True, seq_len=2000)
    assert answer.data is not None
    assert answer.data.padded_tokens == answer.data.packed_rows * 2000
    assert any(f"packed into {answer.data.packed_rows:,} rows with" in note.text for note in answer.notes)


def test_nothing_fits_and_the_data_is_still_described(texts: Path) -> None:
    answer = advise("llama-70b", "8GB", data=str(texts))
    assert answer.recommendation is None
    assert answer.data is not None
    assert answer.data.rows == 200


def test_bad_lines_are_in_the_notes(texts: Path) -> None:
    with texts.open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(BadValue, match="--skip-bad-lines"):
        ask(texts)
    answer = ask(texts, skip_bad_lines=True)
    assert answer.data is not None
    assert (answer.data.bad_lines, answer.data.first_bad_lines) == (1, (201,))
    assert any("200 rows, 1 bad line skipped" in note.text for note in answer.notes)


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", [{"question": "what?", "answer": "that"}] * 3)
    answer = ask(path, data_columns="prompt=question,completion=answer")
    assert answer.data_file is not None
    assert answer.data_file.columns == ("question", "answer")


@pytest.mark.parametrize("columns", ["text", "text=", "=a", "body=text", "chosen=a"])
def test_columns_that_are_not_known_are_refused(texts: Path, columns: str) -> None:
    with pytest.raises(BadValue, match=r"--data-columns is .*must be KNOWN=NAME"):
        ask(texts, data_columns=columns)


def test_what_has_no_effect_is_said() -> None:
    answer = advise("llama-3.2-1b", "rtx4090", tokenizer="/nowhere")
    assert answer.recommendation is not None
    said = [warning.text for warning in answer.recommendation.warnings]
    assert "--tokenizer has no effect without --data." in said


def test_a_file_alone_is_described(texts: Path) -> None:
    found = describe(str(texts), {"seq_len": 100, "model": None})
    assert found.summary.rows == 200
    assert found.summary.seq_len == 100
    assert found.summary.micro_batch == 16
    assert "no model and no tokenizer given" in found.summary.counted_by
    of_model = describe(str(texts), {"model": "gpt2", "micro_batch": 2})
    assert of_model.summary.micro_batch == 2
    assert json.loads(of_model.summary.model_dump_json())["rows"] == 200
    with pytest.raises(AdvisorError):
        describe(str(texts), {"model": "no-such-model"})
