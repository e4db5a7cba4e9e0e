"""Files that nobody should hand over: each ends in an answer or in one line, soon, whatever is skipped."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import pytest

from advisor.dataset import reading
from advisor.errors import AdvisorError, BadValue, SourceUnavailable
from tests.dataset.files import measured

GOOD = b'{"text": "good"}\n'
DEEP = 100_000
LINES: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n \n\t\n\r\n",
    "only a mark": b"\xef\xbb\xbf",
    "two marks": b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD,
    "nul bytes": b"\x00" * 5000,
    "nul in a text": b'{"text": "a\x00b"}\n',
    "escaped nul": b'{"text": "a\\u0000b"}\n',
    "utf-16": '{"text": "good"}\n'.encode("utf-16"),
    "utf-16 big": b"\xfe\xff" + '{"text": "good"}\n'.encode("utf-16-be"),
    "utf-16 without a mark": '{"text": "good"}\n'.encode("utf-16-le"),
    "utf-32": b"\x00\x00\xfe\xff" + '{"text": "good"}\n'.encode("utf-32-be"),
    "latin-1": b'{"text": "\xe9t\xe9"}\n',
    "cut in a character": b'{"text": "\xe4\xba"}\n',
    "overlong utf-8": b'{"text": "\xc0\xaf"}\n',
    "surrogates in utf-8": b'{"text": "\xed\xa0\x80"}\n',
    "escaped half pair": b'{"text": "\\ud800 and on"}\n',
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"text":' * DEEP,
    "deep in a row": b'{"text": "a", "x": ' + b"[" * DEEP + b"]" * DEEP + b"}\n",
    "open quote": b'{"text": "a\n' + GOOD,
    "open brace": b'{"text": "a"\n' + GOOD,
    "two objects on a line": b'{"text": "a"}{"text": "b"}\n',
    "trailing comma": b'{"text": "a",}\n',
    "single quotes": b"{'text': 'a'}\n",
    "raw line end in a text": b'{"text": "a\rb"}\n',
    "carriage returns only": b'{"text": "a"}\r{"text": "b"}\r',
    "windows": b'{"text": "a"}\r\n{"text": "b"}\r\n',
    "no last line end": GOOD[:-1],
    "a number": b"42\n",
    "huge number": b'{"text": "a", "n": ' + b"9" * 10_000 + b"}\n",
    "huge exponent": b'{"text": "a", "n": 1e999999}\n',
    "nan": b'{"text": "a", "n": NaN}\n',
    "a string": b'"text"\n',
    "null": b"null\n",
    "true": b"true\n",
    "list rows": b'["a", "b"]\n["c", "d"]\n',
    "no columns": b"{}\n" * 200,
    "text is null": b'{"text": null}\n',
    "text is a number": b'{"text": 3}\n',
    "text is a list": b'{"text": ["a"]}\n',
    "text is empty": b'{"text": ""}\n' * 5,
    "same key twice": b'{"text": 1, "text": "a"}\n',
    "messages empty": b'{"messages": []}\n',
    "messages null": b'{"messages": null}\n',
    "messages a text": b'{"messages": "hello"}\n',
    "messages of texts": b'{"messages": ["hello"]}\n',
    "messages of null": b'{"messages": [null]}\n',
    "message without content": b'{"messages": [{"role": "user"}]}\n',
    "role is a number": b'{"messages": [{"role": 1, "content": "a"}]}\n',
    "content is a number": b'{"messages": [{"role": "user", "content": 1}]}\n',
    "content is an image": b'{"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}]}\n',
    "content in parts": b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}\n',
    "content is null, with calls": b'{"messages": [{"role": "tool", "content": null, "tool_calls": [{"f": 1}]}]}\n',
    "unknown role": b'{"messages": [{"role": "\\u202e", "content": "a"}]}\n',
    "conversations of null": b'{"conversations": [{"from": null, "value": null}]}\n',
    "value is a list": b'{"conversations": [{"from": "human", "value": []}]}\n',
    "prompt is a chat, completion a text": b'{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}\n',
    "prompt without completion": b'{"prompt": "a"}\n',
    "completion is null": b'{"prompt": "a", "completion": null}\n',
    "instruction is null": b'{"instruction": null, "output": "a"}\n',
    "input is a number": b'{"instruction": "a", "input": 5, "output": "a"}\n',
    "preferences": b'{"chosen": "a", "rejected": "b"}\n',
    "names with escapes": b'{"\\u001b[31mred": 1, "\\n": 2}\n',
    "long names": b'{"' + b"n" * 100_000 + b'": 1}\n',
    "many columns": json.dumps({f"c{n}": n for n in range(20_000)}).encode(),
    "form changes": b'{"text": "a"}\n{"prompt": "a", "completion": "b"}\n',
    "gzip by content": gzip.compress(GOOD),
    "zip": b"PK\x03\x04" + b"\x07" * 500,
    "parquet by content": b"PAR1" + b"\x07" * 500,
    "pickle": b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "html": b"<!DOCTYPE html><html></html>\n",
    "yaml": b"- text: a\n- text: b\n",
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "long text": b'{"text": "' + b"a" * 2_000_000 + b'"}\n',
    "control characters": b'{"text": "\\u001b]0;title\\u0007"}\n',
    "emoji": '{"text": "\U0001f600\U0001f468\u200d\U0001f469"}\n'.encode(),
}
ARRAYS: dict[str, bytes] = {
    "empty": b"[]",
    "spaces": b" [ ] \n",
    "open": b"[",
    "open after a row": b'[{"text": "a"}',
    "open after a comma": b'[{"text": "a"},',
    "trailing comma": b'[{"text": "a"},]',
    "no comma": b'[{"text": "a"} {"text": "b"}]',
    "two commas": b'[{"text": "a"},, {"text": "b"}]',
    "cut": b'[{"text": "a"}, {"text": "b',
    "broken in the middle": b'[{"text": "a"}, {"text": nonsense}, ' + b'{"text": "c"}, ' * 100_000 + b"{}]",
    "numbers": b"[1, 2, 34]",
    "numbers without end": b"[1, 2, 34",
    "texts": b'["a", "b"]',
    "arrays": b'[[{"text": "a"}]]',
    "deep": b"[" * DEEP,
    "latin-1": b'[{"text": "\xe9"}]',
    "mark": b'\xef\xbb\xbf[{"text": "a"}]',
    "more after it": b'[{"text": "a"}]\n[{"text": "b"}]',
    "object of arrays": b'{"data": [{"text": "a"}]}',
    "long": b"[" + b",\n".join([b'{"text": "a"}'] * 50_000) + b"]",
}
TABLES: dict[str, bytes] = {
    "header only": b"text\n",
    "open quote": b'text\n"a\n' + b"b\n" * 1000,
    "quote inside": b'text\n"a"b\n',
    "too many fields": b"text\na,b\nc\n",
    "too few fields": b"prompt,completion\na\nb,c\n",
    "semicolons": b"prompt;completion\na;b\n",
    "tabs": b"prompt\tcompletion\na\tb\n",
    "nul": b"text\na\x00b\n",
    "latin-1": b"text\n\xe9\n",
    "no header": b"hello world\nand so on\n",
    "same name twice": b"text,text\na,b\n",
    "blank lines": b"text\n\n\na\n\n",
    "long field": b"text\n" + b"a" * 2_000_000 + b"\n",
    "carriage returns only": b"text\ra\rb\r",
}
PACKED: dict[str, bytes] = {
    "empty": b"",
    "not gzip": GOOD,
    "cut": gzip.compress(GOOD * 1000)[:-20],
    "wrong checksum": gzip.compress(GOOD)[:-8] + b"\x00" * 8,
    "damaged": gzip.compress(os.urandom(3000))[:1000] + b"\xff" * 500,
    "two members": gzip.compress(GOOD) + gzip.compress(GOOD),
    "twice": gzip.compress(gzip.compress(GOOD)),
    "junk behind": gzip.compress(GOOD) + b"junk",
}
PARQUET: dict[str, bytes] = {
    "empty": b"",
    "text": GOOD,
    "magic only": b"PAR1PAR1",
    "cut": b"PAR1" + b"\x15\x04" * 100,
    "absurd footer": b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7f" + b"PAR1",
}
KINDS = {".jsonl": LINES, ".json": ARRAYS, ".csv": TABLES, ".jsonl.gz": PACKED, ".parquet": PARQUET, ".txt": LINES}
CASES = [(ending, name) for ending, contents in KINDS.items() for name in contents]


def test_there_are_at_least_a_hundred() -> None:
    assert len({content for contents in KINDS.values() for content in contents.values()}) > 100


@pytest.mark.parametrize("skipping", [False, True], ids=["", "skipping"])
@pytest.mark.parametrize(("ending", "name"), CASES, ids=[f"{name}{ending}" for ending, name in CASES])
def test_a_file_ends_in_an_answer_or_in_one_line(tmp_path: Path, ending: str, name: str, skipping: bool) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"rows{ending}"
    path.write_bytes(KINDS[ending][name])
    begun = time.process_time()
    try:
        found = measured(path, skip_bad_lines=skipping)
    except AdvisorError as error:
        said = str(error)
        assert said.isprintable(), said
        assert len(said.replace(str(path), "")) < 400, said
        assert str(path) in said or "..." in said
    else:
        assert found.lengths.rows >= 1
        assert found.lengths.tokens >= found.lengths.rows
        assert skipping or not found.bad_lines
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("ending", "name", "words"),
    [
        (".jsonl", "empty", "no rows"),
        (".jsonl", "utf-16", "it is UTF-16; `iconv"),
        (".jsonl", "utf-16 without a mark", "NUL bytes"),
        (".jsonl", "gzip by content", r"name it so, with \.gz"),
        (".jsonl", "deep lists", "line 1 is not JSON"),
        (".jsonl", "latin-1", "not UTF-8"),
        (".jsonl", "content is an image", "something other than text"),
        (".json", "broken in the middle", "line 1 is not JSON, and in an array no item can be skipped"),
        (".json", "open after a row", "not closed"),
        (".json", "latin-1", "not UTF-8"),
        (".json", "object of arrays", "its columns are data"),
        (".csv", "semicolons", "its columns are prompt;completion"),
        (".csv", "too many fields", "2 fields under a header of 1"),
        (".jsonl.gz", "cut", "damaged gzip file"),
        (".jsonl.gz", "not gzip", "damaged gzip file"),
        (".parquet", "text", "cannot be read as Parquet"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, ending: str, name: str, words: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"rows{ending}"
    path.write_bytes(KINDS[ending][name])
    with pytest.raises(AdvisorError, match=words):
        measured(path)


@pytest.mark.parametrize(("ending", "name"), [(".jsonl", "two objects on a line"), (".csv", "quote inside")])
def test_bad_rows_do_not_take_good_ones_with_them(tmp_path: Path, ending: str, name: str) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(KINDS[ending][name] + (GOOD if ending == ".jsonl" else b"good\n"))
    found = measured(path, skip_bad_lines=True)
    assert (found.lengths.rows, found.bad_lines) == (1, 1)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_GIB", 1024**2)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * 8 * 1024**2))
    with pytest.raises(BadValue, match="unpacks to more than 250 times its size"):
        measured(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt", "rows.csv", "rows.jsonl.gz"])
def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(reading, "LONGEST_ROW_BYTES", 1000)
    path = tmp_path / name
    content = b"text\n" + b"a" * 5000
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(BadValue, match="line 2 is longer than 64 MiB"):
        measured(path, skip_bad_lines=True)


@pytest.mark.parametrize("name", ["rows.txt", "rows.jsonl", "rows.parquet", "rows.csv.gz"])
def test_what_is_no_file_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadValue, match="not a regular file"):
        measured(tmp_path / name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).mkdir()
    with pytest.raises(BadValue, match="not a regular file"):
        measured(tmp_path / "folder" / name)
    (tmp_path / "folder" / f"device-{name}").symlink_to("/dev/zero")
    with pytest.raises(BadValue, match="not a regular file"):
        measured(tmp_path / "folder" / f"device-{name}")


def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="No such file"):
        measured(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "name", ["rows", "rows.gz", "rows.xlsx", "rows.parquet.gz", "rows.tsv", "rows.jsonl.zst", ".jsonl"]
)
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD)
    with pytest.raises(BadValue, match=r"must end in one of \.jsonl"):
        measured(tmp_path / name)
