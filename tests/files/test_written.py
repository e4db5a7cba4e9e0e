"""Nothing half-written, nothing overwritten unasked, devices and pipes written to as they are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import BadValue, SourceUnavailable
from advisor.files import written
from advisor.files.written import is_stream, replace_text, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "text é\n", "--to")
    assert (tmp_path / "a").read_bytes() == "text é\n".encode()
    assert names(tmp_path) == ["a"]


def test_an_existing_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(BadValue, match=r"--to is '.*a': exists already; add --force"):
        write_text(path, "new", "--to")
    assert path.read_text() == "old"
    write_text(path, "new", "--to", force=True)
    assert path.read_text() == "new"


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "link").symlink_to("a")
    write_text(tmp_path / "link", "new", "--to", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_text() == "new"


def test_what_is_kept_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever name, whether it exists or not."""
    monkeypatch.setenv("FINETUNE_ADVISOR_DATA", str(tmp_path / "data"))
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "records").write_text("mine")
    (tmp_path / "link").symlink_to("kept/records")
    paths = (
        kept,
        kept / "records",
        kept / "new",
        tmp_path / "link",
        kept / ".." / "kept" / "x",
        tmp_path / "data" / "x",
    )
    for path in paths:
        with pytest.raises(BadValue, match="keeps its own data there"):
            write_text(path, "new", "--to", force=True, kept=(kept,))
    assert names(kept) == ["records"]
    assert (kept / "records").read_text() == "mine"


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(written.os, "fsync", full)
    with pytest.raises(SourceUnavailable, match="No space left"):
        write_text(tmp_path / "a", "new", "--to", force=True)
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "old")


@pytest.mark.parametrize("path", ["/no/such/folder/a", "x" * 300, "a\0b", "/dev/fd/999999"])
def test_what_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceUnavailable, match="cannot be written"):
        write_text(Path(path), "text", "--to")
    assert names(tmp_path) == []


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="neither a file nor a pipe"):
        write_text(tmp_path, "text", "--to", force=True)


def test_a_device_stays_one(tmp_path: Path) -> None:
    write_text(Path("/dev/null"), "text", "--to")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert is_stream(Path("/dev/null"))
    assert is_stream(Path("/dev/stdout"))
    assert not is_stream(tmp_path)


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, text, found = tmp_path / "pipe", "long" * 100_000, bytearray()
    os.mkfifo(pipe)
    with pytest.raises(SourceUnavailable, match="cannot be written"):  # nobody reads
        write_text(pipe, "text", "--to")
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def read() -> None:
        os.set_blocking(end, True)
        while len(found) < len(text):  # nothing comes until the writer is there
            found.extend(os.read(end, 2**16))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    write_text(pipe, text, "--to")
    reader.join(10)
    os.close(end)
    assert found.decode() == text
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.process
def test_standard_output_is_appended_to_where_the_shell_says_so(tmp_path: Path) -> None:
    code = "import pathlib; from advisor.files.written import write_text; write_text(pathlib.Path('{}'), 'new', 'x')"
    (tmp_path / "out").write_text("old ")
    for path in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with (tmp_path / "out").open("a") as out:
            subprocess.run([sys.executable, "-c", code.format(path)], check=True, stdout=out)
    assert (tmp_path / "out").read_text() == "old newnewnew"


def test_the_programs_own_files_are_replaced_and_their_folder_made(tmp_path: Path) -> None:
    replace_text(tmp_path / "a" / "b" / "c", "one")
    replace_text(tmp_path / "a" / "b" / "c", "two")
    assert (tmp_path / "a" / "b" / "c").read_text() == "two"
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceUnavailable, match="cannot be written"):
        replace_text(tmp_path / "file" / "c", "one")
