"""One writer for every file that a user names: nothing half-written, nothing overwritten unasked.

A file is written beside its place and then renamed. Devices and pipes (/dev/stdout, /dev/null, a process that reads)
are written to as they are, as a rename would put a file in their place.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path

from advisor.errors import BadValue, SourceUnavailable
from advisor.files.checked import data_folder

_OPEN_FILE = re.compile(r"(?:/dev|/proc/self)/fd/(\d{1,6})")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


def write_text(path: Path, text: str, what: str, force: bool = False, kept: Iterable[Path] = ()) -> None:
    """Write `text` to the file, device or pipe at `path`; errors name the flag or argument, `what`, that gave it.

    An existing file is replaced only with `force`; `kept`, the user's data folder, and what is inside them never are.
    Raises BadValue for a path that may not be written, SourceUnavailable for one that cannot be.
    """
    try:
        target = Path(os.path.realpath(path))
        for folder in (*kept, data_folder()):
            if target.is_relative_to(os.path.realpath(folder)):
                raise BadValue(what, str(path), f"this program keeps its own data there ({folder}); name another file")
        mode = os.stat(path).st_mode if os.path.exists(path) else None
        if is_stream(path):
            _write_directly(path, text)
        elif mode is not None and not stat.S_ISREG(mode):
            raise BadValue(what, str(path), "neither a file nor a pipe; name a file")
        elif mode is not None and not force:
            raise BadValue(what, str(path), "exists already; add --force to replace it, or name another file")
        else:
            _replace(target, text)
    except BrokenPipeError:  # the reader is gone, as it may be: the command line ends with the exit code for that
        raise
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None


def is_stream(path: Path) -> bool:
    """Whether `path` is a pipe, a character device or an open file of this process (/dev/stdout)."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or _open_file(path) is not None


def replace_text(path: Path, text: str) -> None:
    """Replace one of the program's own files atomically; its folder is made. Raises SourceUnavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(draft, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _write_directly(path: Path, text: str) -> None:
    """To an open file of this process through that file, so that a shell's `>` and `>>` mean what they say."""
    number = _open_file(path)
    if number is not None:
        sys.stdout.flush()
        handle = os.dup(number)
    else:  # opened without waiting, so that a pipe that nobody reads is an error
        handle = os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_NONBLOCK", 0))
        if hasattr(os, "set_blocking"):
            os.set_blocking(handle, True)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _open_file(path: Path) -> int | None:
    """The number of the open file that `path` is another name of."""
    name = os.path.abspath(path)
    found = _OPEN_FILE.fullmatch(name)
    return int(found[1]) if found else _STANDARD.get(name)


def _unwritable(path: Path, error: OSError | ValueError) -> SourceUnavailable:
    reason = getattr(error, "strerror", None) or error
    return SourceUnavailable(f"{path}: cannot be written ({reason})")
