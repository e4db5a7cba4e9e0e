"""Data files in every format and form, and the rows that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.answer import DataFile
from advisor.dataset.summary import measure, summary_of
from advisor.errors import BadValue, InputError
from advisor.specs import Workload
from tests.dataset.files import COLUMNS, FORMATS, NESTED, NOISE, ROWS, estimating, measured, written


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("format_", FORMATS)
def test_every_form_in_every_format(tmp_path: Path, format_: str, form: str) -> None:
    if format_ == "parquet":
        pytest.importorskip("pyarrow")
    if format_ == "csv" and form in NESTED:
        pytest.skip("a field of CSV is text")
    alone = measured(written(tmp_path, "alone.jsonl", [ROWS[form]] * 3))
    path = written(tmp_path, f"rows.{format_}", [NOISE | ROWS[form]] * 3)
    found = measured(path)
    kind = {"ndjson": "jsonl", "pretty.json": "json"}.get(format_, format_)
    assert found.file == DataFile(path=str(path), format=kind, form=form, columns=COLUMNS[form])
    assert found.lengths.rows == 3
    assert found.mean_tokens == alone.mean_tokens
    assert 8 <= found.mean_tokens.likely <= 30
    assert found.bad_lines == 0


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.pretty.json.gz", "rows.csv.gz"])
def test_gzipped_files(tmp_path: Path, name: str) -> None:
    found = measured(written(tmp_path, name, [ROWS["prompt_completion"]] * 2000))
    assert (found.lengths.rows, found.file.form) == (2000, "prompt_completion")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, [ROWS["text"]] * 2)
    before = measured(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    after = measured(path)
    assert after._replace(lengths=before.lengths) == before
    assert (after.lengths.values, after.lengths.counts) == (before.lengths.values, before.lengths.counts)


def test_plain_text_has_a_row_a_line(tmp_path: Path) -> None:
    path = tmp_path / "ROWS.TXT"
    path.write_text("one line of text\n\n  \nand another\n")
    found = measured(path)
    assert found.file == DataFile(path=str(path), format="text", form="text", columns=())
    assert found.lengths.rows == 2


def test_chinese_is_not_a_quarter_of_its_characters(tmp_path: Path) -> None:
    path = written(tmp_path, "zh.jsonl", [{"text": "人人生而自由,在尊严和权利上一律平等。" * 100}])
    tokens = measured(path).mean_tokens
    assert 900 < tokens.low < tokens.likely < tokens.high < 2000


def test_the_chosen_columns_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", [{"question": "a b", "answer": "c d", "text": "x" * 9000}])
    found = measured(path, renamed={"prompt": "question", "completion": "answer"})
    assert (found.file.form, found.file.columns) == ("prompt_completion", ("question", "answer"))
    assert found.longest_tokens.high < 10
    with pytest.raises(BadValue, match=r"--data-columns is 'prompt=querry': no such column .*question, answer, text"):
        measured(path, renamed={"prompt": "querry", "completion": "answer"})


def bad_file(tmp_path: Path) -> Path:
    lines = [json.dumps({"text": "good"})] * 20
    for number, line in {
        3: '{"text": ',
        7: "[1]",
        9: '{"text": null}',
        11: '{"other": 1}',
        15: "nonsense",
        16: "{}",
    }.items():
        lines[number - 1] = line
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_bad_lines_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"6 of 20 rows .* lines 3, 7, 9, 11, 15, \.\.\. .*not JSON.*--skip-bad-lines"):
        measured(bad_file(tmp_path))


def test_bad_lines_are_counted_when_they_are_skipped(tmp_path: Path) -> None:
    found = measured(bad_file(tmp_path), skip_bad_lines=True)
    assert (found.lengths.rows, found.bad_lines, found.first_bad_lines) == (14, 6, (3, 7, 9, 11, 15))


def test_a_file_without_a_good_row_cannot_be_skipped_through(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("nonsense\n" * 3)
    with pytest.raises(BadValue, match=r"3 of 3 rows cannot be read, at lines 1, 2, 3 .*none can be read"):
        measured(path, skip_bad_lines=True)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": "a", "rejected": "b"}, "preferences"),
        ({"prompt": "a", "chosen": "a", "rejected": "b"}, "preferences"),
        ({"question": "a", "answer": "b"}, "its columns are question, answer; recognized are text; prompt and"),
        ({"prompt": "a"}, "its columns are prompt;"),
        ({"text": 5}, "text is a number, not text"),
        ({f"column{n}": 1 for n in range(30)}, "column7 and 22 more"),
    ],
)
def test_what_is_not_recognized_is_said_with_its_columns(tmp_path: Path, row: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        measured(written(tmp_path, "rows.jsonl", [row] * 150))
    assert "\n" not in str(caught.value)


def test_one_strange_row_at_the_start_is_a_bad_line(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", [{"about": "this file"}, *[ROWS["text"]] * 5])
    found = measured(path, skip_bad_lines=True)
    assert (found.lengths.rows, found.first_bad_lines, found.file.form) == (5, (1,), "text")


def test_progress_ends_near_the_size(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", [ROWS["text"]] * 5000)
    told: list[tuple[int, int]] = []
    measure(str(path), estimating(), progress=lambda done, total: told.append((done, total)))
    assert len(told) == 19
    assert told == sorted(told)
    assert {total for _, total in told} == {path.stat().st_size}


def test_the_job_cuts_pads_and_packs(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(f"{'a ' * 400}\n" * 30 + "b\n" * 70)
    found = measured(path)
    long, short = found.lengths.longest, found.lengths.values[0]
    work = Workload(examples=100, epochs=2.0, seq_len=50, mean_seq_len=20, batch_size=16)
    made = summary_of(found, work, micro_batch=4)
    assert (made.rows, made.rows_cut, made.steps, made.micro_batch) == (100, 30, 13, 4)
    assert made.tokens_cut == pytest.approx(30 * (long - 50) / (30 * long + 70 * short))
    assert made.real_tokens == 30 * 50 + 70 * short
    expected = 100 * (50 - (50 - short) * 0.7**4)
    assert made.padded_tokens == pytest.approx(expected, abs=1)
    assert dict(made.padding)[4] == pytest.approx(1 - made.real_tokens / expected)
    packed = summary_of(found, work.model_copy(update={"packing": True}), micro_batch=4)
    assert packed.packed_rows == 30 + -(-70 // (50 // short))
    assert packed.padded_tokens == packed.packed_rows * 50
    assert packed.steps == -(-packed.packed_rows * 2 // 16)
