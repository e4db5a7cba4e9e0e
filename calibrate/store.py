"""The store of measurements: one JSON record a line, only ever appended to. Needs no torch.

A line is written in full and synced to disk before the burst counts as finished; a lock keeps two runs apart. If a
power cut leaves the last line half written, readers skip it and the next writer removes it. Records of a newer schema
are counted but not interpreted.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from advisor.errors import BadConfig, SourceUnavailable, shown
from advisor.files.checked import FOLDER_VARIABLE, data_folder
from advisor.files.guarded import opened
from advisor.files.written import write_text
from advisor.units import MIB
from calibrate.measurement import SCHEMA_VERSION, Comparison
from calibrate.rates import RATES_SCHEMA, Rates
from calibrate.record import printable

FILE_NAME = "records.jsonl"
LOCK_LIMIT_S = 30.0
MAX_LINE_BYTES = 2**20
MAX_IMPORT_BYTES = 2**28
LONGEST_VALUE = 60
CLAIMS = "claims"
"""Folder of the bursts that a session measures at the moment."""
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

    @property
    def own_files(self) -> tuple[Path, ...]:
        """The files and folders that the store is made of."""
        return self.path, self._lock_path, self.folder / CLAIMS

    @property
    def _lock_path(self) -> Path:
        return self.path.with_suffix(".lock")

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
        """Everything readable; nothing when there is no store yet. Raises SourceUnavailable, BadConfig."""
        return self.read_from(0)[0]

    def read_from(self, start: int) -> tuple[Contents, int]:
        """What was written after byte `start`, and the byte after the last whole line. Raises what `read` raises."""
        try:
            os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return Contents((), 0, 0), 0
        except OSError as error:
            raise SourceUnavailable(f"{self.path}: cannot be read ({error.strerror})") from None
        records: list[Comparison] = []
        newer = damaged = 0
        with opened(self.path, str(self.path), "name another folder with --out") as file:
            file.seek(start)
            for line in _lines(file):
                whole = line.endswith(b"\n")
                start = file.tell() if whole else start
                try:
                    records.append(parse(line))
                except NewerRecord:
                    newer += 1
                except BadRecord:
                    damaged += whole  # the last line may be half written: it was never finished
        return Contents(tuple(records), newer, damaged), start

    @contextlib.contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Whether this session alone measures the burst `key` meanwhile; False while another session does.

        A claim is a locked file, so that it ends with the process that holds it. Raises SourceUnavailable.
        """
        path = self.folder / CLAIMS / key
        ours = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            ours = _lock(file) and _is_at(file, path)  # else the session that had it has just removed the file
            yield ours
        finally:
            if ours:
                with contextlib.suppress(OSError):
                    path.unlink()
            os.close(file)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            yield file
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        file = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o644)
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


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines with their ends; one that is too long for a record comes in pieces, none of which is a record."""
    return iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")


def _object_in(line: bytes) -> dict[str, Any]:
    try:
        # Refuses NaN, half of a surrogate pair, and what is nested too deeply to be written again.
        found = from_json(line, allow_inf_nan=False) if len(line) <= MAX_LINE_BYTES else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadRecord("not a JSON object of a reasonable size")
    return found


def _valid(kind: type[Kind], found: dict[str, Any]) -> Kind:
    version, newest = found.get("schema_version"), RATES_SCHEMA if kind is Rates else SCHEMA_VERSION
    if isinstance(version, int) and version > newest:
        raise NewerRecord(f"the record has schema {str(version)[:20]} but this program reads {newest}: update it")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, value = ".".join(map(str, first["loc"])), repr(first["input"])
        was = "" if first["type"] == "missing" else f" is {shown(value, LONGEST_VALUE)}"
        raise BadRecord(printable(f"{where}{was}: {first['msg']}")) from None


class Shared(NamedTuple):
    """The contents of an imported file."""

    records: tuple[Comparison, ...]
    rates: tuple[Rates, ...]


def parse_file(path: Path) -> Shared:
    """Records and micro-benchmarks of an imported file, each burst once; every line must be valid.

    Raises BadConfig, naming the line, NewerRecord or SourceUnavailable.
    """
    records: dict[str, Comparison] = {}
    rates: list[Rates] = []
    name = shown(path)
    with opened(path, name, "give a file that `calibrate export` wrote") as file:
        for number, line in enumerate(_lines(file), 1):
            if file.tell() > MAX_IMPORT_BYTES:
                raise BadRecord(f"{name}: larger than {MAX_IMPORT_BYTES // MIB} MiB; export and import fewer records")
            if not line.strip():
                continue
            try:
                found = _object_in(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
                if "samples" in found:
                    rates.append(_valid(Rates, found))
                    continue
                record = _valid(Comparison, found)
            except BadRecord as error:
                raise type(error)(f"{name}, line {number}: {error}") from None
            if record.burst is None or record.burst.outcome == "started":
                raise BadRecord(f"{name}, line {number}: not the result of a burst")
            records[record.burst.id] = record
    if not records:
        raise BadRecord(f"{name}: contains no records")
    return Shared(tuple(records.values()), tuple(rates))


def write_file(path: Path, shared: Shared, force: bool = False, kept: Iterable[Path] = ()) -> None:
    """Write records and micro-benchmarks to a file of their own. Raises what `advisor.files.written` raises."""
    text = "".join(one.model_dump_json() + "\n" for one in (*shared.records, *shared.rates))
    write_text(path, text, "FILE", force, kept)


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


def _is_at(file: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


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
