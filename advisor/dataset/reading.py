"""Rows of a data file, one after another: JSON Lines, JSON arrays, CSV, Parquet and plain text, also gzipped.

Nothing but the row at hand is kept, so that a file of any length takes the same memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple, cast

from advisor.answer import DataFormat
from advisor.dataset.rows import BadRow, Numbered, Progress
from advisor.errors import BadValue, SourceUnavailable

FORMATS: dict[str, DataFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}
LONGEST_ROW_BYTES = 64 * 1024**2
LARGEST_EXPANSION = 250
"""Bytes out of one gzipped byte, beyond which a file of a gigabyte or more is no text."""
_GIB = 1024**3
_CHUNK = 1024**2
_WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}

_MARK = b"\xef\xbb\xbf"
_NOT_SPACE = re.compile(r"[^ \t\n\r]")


class Source(NamedTuple):
    """A data file, before its rows are read."""

    path: str
    format: DataFormat
    gzipped: bool
    size_bytes: int

    @classmethod
    def of(cls, path: str) -> Source:
        """What `path` names. Raises BadValue for what is no data file, SourceUnavailable for what cannot be read."""
        base, ending = os.path.splitext(path.lower())
        gzipped = ending == ".gz"
        format_ = FORMATS.get(os.path.splitext(base)[1] if gzipped else ending)
        if format_ is None or (gzipped and format_ == "parquet"):
            endings = ", ".join(FORMATS)
            raise BadValue("--data", path, f"must end in one of {endings} (.gz may follow all but .parquet)")
        with _readable(path):
            state = os.stat(path)
            if not stat.S_ISREG(state.st_mode):
                raise BadValue("--data", path, "not a regular file")
            with open(path, "rb") as file:
                start = file.read(4096)
        if format_ != "parquet" and not gzipped:
            _refuse_other_encodings(path, start)
        if format_ in ("json", "jsonl"):
            with _readable(path), _opened(path, gzipped) as file:
                begin = file.read(4096).removeprefix(_MARK).lstrip()[:1]
            format_ = "json" if begin == b"[" else "jsonl"
        return cls(path, format_, gzipped, state.st_size)


def _refuse_other_encodings(path: str, start: bytes) -> None:
    for mark, name in _WIDE.items():
        if start.startswith(mark):
            raise BadValue("--data", path, f"it is {name}; `iconv -f {name} -t UTF-8` makes it the UTF-8 that is read")
    if start.startswith(b"\x1f\x8b"):
        raise BadValue("--data", path, "it is gzipped; name it so, with .gz at the end")
    if b"\x00" in start:
        raise BadValue("--data", path, "it holds NUL bytes and is no UTF-8 text")


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn what reading can raise into errors of one line."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadValue("--data", path, f"damaged gzip file ({error})") from None
    except OSError as error:
        raise SourceUnavailable(f"cannot read --data {path!r}: {error.strerror or error}") from error


def _opened(path: str, gzipped: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if gzipped else open(path, "rb", buffering=_CHUNK)


def rows_of(source: Source, columns: Sequence[str], progress: Progress | None = None) -> Iterator[Numbered]:
    """Every row of the file. `columns` are those that Parquet, whose columns are stored apart, is asked for.

    `progress` is told how many bytes of how many are read. Raises BadValue for a file that is not what it claims to
    be, SourceUnavailable for one that cannot be read.
    """
    with _readable(source.path):
        if source.format == "parquet":
            from advisor.dataset.parquet import parquet_rows

            yield from parquet_rows(source.path, columns, progress)
            return
        with open(source.path, "rb", buffering=_CHUNK) as raw:
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if source.gzipped else raw
            watch = _watch(source, file, raw, progress)
            if source.format == "json":
                yield from _Array(source.path, file, watch).rows()
                return
            lines = _lines(source.path, file, watch)
            yield from _csv_rows(lines) if source.format == "csv" else _line_rows(lines, source.format == "jsonl")


def _watch(source: Source, file: IO[bytes], raw: IO[bytes], progress: Progress | None) -> Callable[[], None]:
    """What is called now and then: refuses a file that unpacks without end, and reports progress."""

    def watch() -> None:
        if source.gzipped and file.tell() > max(_GIB, LARGEST_EXPANSION * raw.tell()):
            raise BadValue("--data", source.path, f"it unpacks to more than {LARGEST_EXPANSION} times its size")
        if progress is not None:
            progress(raw.tell(), source.size_bytes)

    return watch


def _lines(path: str, file: IO[bytes], watch: Callable[[], None]) -> Iterator[bytes]:
    """Lines without a byte-order mark. Raises BadValue for one that does not end within 64 MiB."""
    readline, number = file.readline, 0
    while line := readline(LONGEST_ROW_BYTES + 1):
        number += 1
        if len(line) > LONGEST_ROW_BYTES:
            raise BadValue("--data", path, f"line {number:,} is longer than 64 MiB")
        if number == 1:
            line = line.removeprefix(_MARK)
        if number % 256 == 0:
            watch()
        yield line


def _line_rows(lines: Iterator[bytes], is_json: bool) -> Iterator[Numbered]:
    """JSON Lines or plain text; empty lines are no rows."""
    decode = json.JSONDecoder().decode
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            text = line.decode()
            if is_json:
                row = decode(text)
                yield number, row if type(row) is dict else BadRow("not a JSON object")
            else:
                yield number, {"text": text.strip()}
        except UnicodeDecodeError:
            yield number, BadRow("not UTF-8")
        except (ValueError, RecursionError):
            yield number, BadRow("not JSON")


def _csv_rows(lines: Iterator[bytes]) -> Iterator[Numbered]:
    """CSV with commas and a header, as Hugging Face's loader reads it; fields may hold line ends."""
    before = csv.field_size_limit(LONGEST_ROW_BYTES)
    try:
        reader = csv.reader((line.decode("utf-8", "surrogateescape") for line in lines), strict=True)
        header: list[str] | None = None
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, BadRow(f"not CSV: {error}")
                continue
            if header is None:
                header = fields
            elif not fields:
                continue
            elif len(fields) != len(header):
                yield reader.line_num, BadRow(f"{len(fields)} fields under a header of {len(header)}")
            elif any(not field.isascii() and _broken(field) for field in fields):
                yield reader.line_num, BadRow("not UTF-8")
            else:
                yield reader.line_num, dict(zip(header, fields, strict=True))
    finally:
        csv.field_size_limit(before)


def _broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class _Array:
    """A JSON array whose items are decoded as its text comes in."""

    def __init__(self, path: str, file: IO[bytes], watch: Callable[[], None]) -> None:
        self.path, self.watch = path, watch
        self.text = io.TextIOWrapper(file, encoding="utf-8-sig")
        self.buffer, self.place, self.line = "", 0, 1

    def rows(self) -> Iterator[Numbered]:
        """Every item. Raises BadValue at a broken one: where the next begins cannot be told."""
        scan = json.JSONDecoder().raw_decode
        self._expect("[")
        closed = self._next() == "]"
        while not closed:
            try:
                row, end = scan(self.buffer, self.place)
            except (ValueError, RecursionError) as error:
                if self._is_whole(error) or not self._more():
                    raise self._broken() from None
                continue
            if end == len(self.buffer) and self._more():
                continue  # a number may go on
            self._skip_to(end)
            yield self.line, row if type(row) is dict else BadRow("not a JSON object")
            closed = self._next() == "]"
            if not closed:
                self._expect(",")
                self._next()

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise self._broken()
        self.place += 1

    def _next(self) -> str:
        """The character after any white space, which is skipped."""
        while True:
            found = _NOT_SPACE.search(self.buffer, self.place)
            self._skip_to(found.start() if found else len(self.buffer))
            if found:
                return found[0]
            if not self._more():
                raise BadValue("--data", self.path, f"the JSON array that it holds is not closed (line {self.line:,})")

    def _skip_to(self, place: int) -> None:
        self.line += self.buffer.count("\n", self.place, place)
        self.place = place

    def _more(self) -> bool:
        """Read on, twice as much as is still to be decoded; False at the end of the file."""
        self.watch()
        rest = self.buffer[self.place :]
        if len(rest) > LONGEST_ROW_BYTES:
            raise BadValue("--data", self.path, f"the item at line {self.line:,} is longer than 64 MiB")
        try:
            more = self.text.read(max(_CHUNK, len(rest)))
        except UnicodeDecodeError:
            raise BadValue("--data", self.path, f"not UTF-8, soon after line {self.line:,}") from None
        self.buffer, self.place = rest + more, 0
        return bool(more)

    def _is_whole(self, error: Exception) -> bool:
        """Whether the text is wrong, not cut off: what is cut off fails at its end, or at the start of a string."""
        if not isinstance(error, json.JSONDecodeError):
            return True
        return not error.msg.startswith("Unterminated") and error.pos + 16 < len(self.buffer)

    def _broken(self) -> BadValue:
        return BadValue("--data", self.path, f"line {self.line:,} is not JSON, and in an array no item can be skipped")
