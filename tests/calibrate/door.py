"""The `calibrate` command as a test types it."""

from __future__ import annotations

import sys

import pytest

from calibrate import cli


class Door:
    """Runs the command and keeps what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        self._monkeypatch.setattr(sys, "argv", ["calibrate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        self.out, self.err = self._capsys.readouterr()
        return int(stop.value.code or 0)
