"""One guard for every file that a user names: reading it ends, whatever is at the path.

Only regular files are read: a pipe would wait for its writer, a device may never end. A file is looked at before it is
opened, as opening a device can already do something, and opened without waiting, as it may be replaced in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from advisor.errors import BadConfig, SourceUnavailable
from advisor.units import MIB

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def named_path(text: str) -> Path:
    """The path that a user typed, with `~` expanded; a user who does not exist is left for the reader to report."""
    return Path(os.path.expanduser(text))


@contextmanager
def opened(path: Path, name: str, hint: str) -> Iterator[IO[bytes]]:
    """The regular file at `path`, open for reading; errors start with `name` and end with `hint`.

    Raises BadConfig for anything else than a regular file, SourceUnavailable for what is missing or cannot be read,
    also while it is read.
    """
    try:
        with _open(path, name, hint) as file:
            yield file
    except FileNotFoundError:
        raise SourceUnavailable(f"{name}: cannot be read (no such file); {hint}") from None
    except OSError as error:
        raise SourceUnavailable(f"{name}: cannot be read ({error.strerror or error}); {hint}") from None


def _open(path: Path, name: str, hint: str) -> IO[bytes]:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        _check_regular(os.stat(path), name, hint)
        file = os.fdopen(os.open(path, flags), "rb")
    except ValueError as error:  # a zero byte, or a character that the system cannot encode
        raise SourceUnavailable(f"{name}: cannot be read ({error}); {hint}") from None
    try:
        _check_regular(os.fstat(file.fileno()), name, hint)
    except BadConfig:
        file.close()
        raise
    return file


def read_bytes(path: Path, name: str, hint: str, limit_bytes: int) -> bytes:
    """What a small file holds. Raises what `opened` raises, and BadConfig for more than `limit_bytes` (whole MiB)."""
    with opened(path, name, hint) as file:
        data = file.read(limit_bytes + 1) or b""  # None: the kernel's own files without news
    if len(data) > limit_bytes:
        raise BadConfig(f"{name}: larger than {limit_bytes // MIB} MiB; {hint}")
    return data


def read_text(path: Path, name: str, hint: str, limit_bytes: int) -> str:
    """What a small UTF-8 file holds, without a byte order mark. Raises what `read_bytes` raises, and BadConfig."""
    return decoded(read_bytes(path, name, hint, limit_bytes), name, hint)


def decoded(data: bytes, name: str, hint: str) -> str:
    """UTF-8 as text, without a byte order mark. Raises BadConfig."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadConfig(f"{name}: not UTF-8 text (byte {error.start}); {hint}") from None


def _check_regular(status: os.stat_result, name: str, hint: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "something else")
        raise BadConfig(f"{name}: cannot be read ({kind}, not a regular file); {hint}")
