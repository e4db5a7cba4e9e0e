"""Whatever is at a path that a user names, reading it ends, with one line."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from advisor.errors import AdvisorError, BadConfig, SourceUnavailable
from advisor.files.guarded import named_path, opened, read_bytes, read_text
from advisor.units import MIB


def refusal(path: Path, limit_bytes: int = MIB) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        read_text(path, "--it 'x'", "give another", limit_bytes)
    message = str(caught.value)
    assert message.startswith("--it 'x': ")
    assert message.endswith("; give another")
    assert "\n" not in message
    return caught.value


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo")
    assert read_text(path, "it", "", MIB) == "one\ntwo"
    assert read_bytes(path, "it", "", MIB) == b"\xef\xbb\xbfone\ntwo"
    (tmp_path / "link").symlink_to(path)
    with opened(tmp_path / "link", "it", "") as file:
        assert list(file) == [b"\xef\xbb\xbfone\n", b"two"]


@pytest.mark.parametrize(("kind", "says"), [("pipe", "a pipe"), ("folder", "a folder"), ("socket", "a socket")])
def test_what_is_no_regular_file_is_refused_unopened(tmp_path: Path, kind: str, says: str) -> None:
    path = tmp_path / "it"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    error = refusal(path)
    assert isinstance(error, BadConfig)
    assert f"cannot be read ({says}, not a regular file)" in str(error)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_devices_are_refused(path: str) -> None:
    assert "a device, not a regular file" in str(refusal(Path(path)))


def test_a_pipe_that_takes_the_place_of_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and the opening."""
    path, other = tmp_path / "it", tmp_path / "other"
    os.mkfifo(path)
    other.write_text("")
    seen = os.stat(other)
    monkeypatch.setattr(os, "stat", lambda *_, **__: seen)
    assert "a pipe" in str(refusal(path))


def test_a_large_file_is_refused_after_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "it"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert "larger than 1 MiB" in str(refusal(path))


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"ab\xff")
    assert "not UTF-8 text (byte 2)" in str(refusal(tmp_path / "it"))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/no/such/file", "no such file"),
        ("/dev/null/x", "Not a directory"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "null byte"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_what_cannot_be_reached_is_unavailable(path: str, says: str) -> None:
    error = refusal(Path(path))
    assert isinstance(error, SourceUnavailable)
    assert says in str(error)


def test_an_error_of_the_reader_itself_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("")
    with pytest.raises(ValueError, match="mine"), opened(tmp_path / "it", "it", ""):
        raise ValueError("mine")


def test_a_home_that_is_not_there_is_left_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert named_path("~/a") == Path("/home/me/a")
    assert named_path("~no-such-user/a") == Path("~no-such-user/a")
