"""The store of measurements: one JSON record a line, only ever appended to. Needs no torch.

A line is written in full and synced to disk before the burst counts as finished; a lock keeps two runs apart. If a
power cut leaves the last line half written, readers skip it and the next writer removes it. Records of a newer schema
are counted but not interpreted.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from advisor.errors import BadConfig, SourceUnavailable
from advisor.files.checked import FOLDER_VARIABLE, data_folder
from calibrate.measurement import SCHEMA_VERSION, Comparison
from calibrate.rates import Rates

FILE_NAME = "records.jsonl"
LOCK_LIMIT_S = 30.0
MAX_LINE_BYTES = 2**20
Kind = TypeVar("Kind", Comparison, Rates)


class Contents(NamedTuple):
    """What a store holds: records in the order in which they were written, and the number of unreadable lines."""

    records: tuple[Comparison, ...]
    newer: int
    damaged: int

    @property
    def results(self) -> tuple[Comparison, ...]:
        """Finished bursts, whatever the outcome; bursts with only a start record are omitted."""
        return tuple(one for one in self.records if one.burst is not None and one.burst.outcome != "started")

    @property
    def remark(self) -> str:
        """One line on what was skipped; '' when nothing was."""
        said = []
        if self.newer:
            said.append(f"skipped {self.newer} records of a newer version of this program: update it")
        if self.damaged:
            said.append(f"skipped {self.damaged} damaged line{'s' if self.damaged > 1 else ''}")
        return "; ".join(said)


def default_folder() -> Path:
    """The folder of the measurements: in FINETUNE_ADVISOR_DATA, or this program's user data folder."""
    return data_folder() / "bursts"


class Store:
    """The records in one folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """Without `folder`, the user's own store. Nothing is created or opened yet."""
        self.folder = default_folder() if folder is None else folder
        self.path = self.folder / FILE_NAME

    def prepare(self) -> None:
        """Create the folder and check that it is writable. Raises SourceUnavailable."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(), self._opened():
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def append(self, *records: Comparison) -> None:
        """Append records, all or nothing. Raises SourceUnavailable."""
        data = "".join(record.model_dump_json() + "\n" for record in records).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(), self._opened() as file:
                end = _repair(file)
                try:
                    _write(file, data)
                    os.fsync(file)
                except OSError:
                    os.ftruncate(file, end)
                    raise
        except OSError as error:
            raise self._unwritable(error) from None

    def read(self) -> Contents:
        """Everything readable; nothing when there is no store yet. Raises SourceUnavailable."""
        try:
            data = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return Contents((), 0, 0)
        except OSError as error:
            raise SourceUnavailable(f"{self.path}: cannot be read ({error.strerror})") from None
        records: list[Comparison] = []
        newer = damaged = 0
        lines = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                records.append(parse(line))
            except NewerRecord:
                newer += 1
            except BadRecord:
                damaged += number < len(lines)  # the last line may be half written: it was never finished
        return Contents(tuple(records), newer, damaged)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            yield file
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        file = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            end_s = time.monotonic() + LOCK_LIMIT_S
            while not _lock(file):
                if time.monotonic() > end_s:
                    raise SourceUnavailable(f"{self.path}: locked by another run for {LOCK_LIMIT_S:g} s")
                time.sleep(0.05)
            yield
        finally:
            os.close(file)  # which unlocks

    def _unwritable(self, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self.path}: cannot be written ({error.strerror}); name another folder with --out or {FOLDER_VARIABLE}"
        )


class BadRecord(BadConfig):
    """A line that is not a record."""


class NewerRecord(BadRecord):
    """A record that a newer version of this program wrote."""


def parse(line: bytes) -> Comparison:
    """The record in a line. Raises NewerRecord, BadRecord."""
    return _valid(Comparison, _object_in(line))


def _object_in(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line) if len(line) <= MAX_LINE_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadRecord("not a JSON object of a reasonable size")
    return found


def _valid(kind: type[Kind], found: dict[str, Any]) -> Kind:
    version = found.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerRecord(f"the record has schema {version} but this program reads {SCHEMA_VERSION}: update it")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRecord(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


class Shared(NamedTuple):
    """The contents of an imported file."""

    records: tuple[Comparison, ...]
    rates: tuple[Rates, ...]


def parse_file(path: Path) -> Shared:
    """Records and micro-benchmarks of an imported file; every line must be valid.

    Raises BadConfig, naming the line, NewerRecord or SourceUnavailable.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SourceUnavailable(f"{path}: cannot be read ({error.strerror})") from None
    records: list[Comparison] = []
    rates: list[Rates] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = _object_in(line)
            if "samples" in found:
                rates.append(_valid(Rates, found))
                continue
            record = _valid(Comparison, found)
        except BadRecord as error:
            raise type(error)(f"{path}, line {number}: {error}") from None
        if record.burst is None or record.burst.outcome == "started":
            raise BadRecord(f"{path}, line {number}: not the result of a burst")
        records.append(record)
    if not records:
        raise BadRecord(f"{path}: contains no records")
    return Shared(tuple(records), tuple(rates))


def write_file(path: Path, shared: Shared) -> None:
    """Write records and micro-benchmarks to a file of their own, all or nothing. Raises SourceUnavailable."""
    replace_file(path, "".join(one.model_dump_json() + "\n" for one in (*shared.records, *shared.rates)))


def replace_file(path: Path, text: str) -> None:
    """Replace a file's contents atomically. Raises SourceUnavailable."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise SourceUnavailable(f"{path}: cannot be written ({error.strerror})") from None


def _repair(file: int) -> int:
    """Remove a half-written last line, or add its missing newline; returns where the next line begins."""
    size = os.fstat(file).st_size
    start = size
    while start > 0:  # search backwards for the end of the last full line
        begin = max(0, start - 65_536)
        os.lseek(file, begin, os.SEEK_SET)
        at = os.read(file, start - begin).rfind(b"\n")
        if at >= 0:
            start = begin + at + 1
            break
        start = begin
    if start < size and _is_whole(file, start, size):
        os.lseek(file, size, os.SEEK_SET)
        _write(file, b"\n")
        start = size + 1
    elif start < size:
        os.ftruncate(file, start)
    os.lseek(file, start, os.SEEK_SET)
    return start


def _is_whole(file: int, start: int, size: int) -> bool:
    if size - start > MAX_LINE_BYTES:
        return False
    os.lseek(file, start, os.SEEK_SET)
    try:
        parse(os.read(file, size - start))
    except NewerRecord:
        return True
    except BadRecord:
        return False
    return True


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _lock(file: int) -> bool:
    """Try to take the exclusive lock; it is released with the file or the process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
