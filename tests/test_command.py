"""Every end of a command, in this process and as its own: one line on stderr, and the documented exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from advisor.command import CommandGroup
from advisor.errors import BadValue, SourceUnavailable

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"advisor": "advise", "advisor.cli": "advise", "calibrate": "calibrate", "calibrate.cli": "calibrate"}


def group_that(ends: Callable[[], object]) -> CommandGroup:
    """A group `tool` with one command, `go`, which ends so."""
    group = CommandGroup("tool")
    group.add_command(click.Command("go", callback=ends))
    return group


def raises(error: BaseException) -> Callable[[], object]:
    def end() -> None:
        raise error

    return end


@pytest.mark.parametrize(
    ("ends", "code", "line"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (raises(BadValue("--rank", 0, "more than 0")), 2, "tool: error: --rank is 0: more than 0\n"),
        (raises(SourceUnavailable("no driver\nhere")), 4, "tool: error: no driver here\n"),
        (raises(click.UsageError("what is this?")), 2, "tool: error: what is this?\n"),
        (raises(click.UsageError("\x1b[31m \x00é")), 2, "tool: error: \\x1b[31m \\x00é\n"),
        (raises(click.UsageError("9" * 5000)), 2, f"tool: error: {'9' * 1200}...\n"),
        (raises(click.exceptions.Exit(7)), 7, ""),
        (raises(click.Abort()), 130, "interrupted\n"),
        (raises(KeyboardInterrupt()), 130, "\ninterrupted\n"),
    ],
)
def test_an_end_has_its_code_and_its_line(ends: Callable[[], object], code: int, line: str) -> None:
    result = CliRunner().invoke(group_that(ends), ["go"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", line)


@pytest.mark.parametrize("words", [["gone"], ["go", "--fast"], ["--fast"]])
def test_what_is_not_there_is_one_line(words: list[str]) -> None:
    result = CliRunner().invoke(group_that(lambda: None), words)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("tool: error: ")


def test_an_unknown_command_is_told_with_the_known_ones() -> None:
    result = CliRunner().invoke(group_that(lambda: None), ["gone"])
    assert result.stderr == "tool: error: unknown command 'gone'; did you mean go?; commands: go\n"


def test_without_standalone_mode_errors_reach_the_caller() -> None:
    with pytest.raises(SourceUnavailable):
        group_that(raises(SourceUnavailable("none"))).main(["go"], standalone_mode=False)
    assert group_that(lambda: 3).main(["go"], standalone_mode=False) == 3


def as_module(name: str, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.process
@pytest.mark.parametrize(("module", "command"), MODULES.items())
def test_each_command_is_a_module_too(module: str, command: str) -> None:
    told = as_module(module, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"Usage: {command} [OPTIONS]")
    refused = as_module(module, "--rank", "many", "--model", "llama-8b", "--gpu", "24GB", "--examples", "1")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.startswith(f"{command}: error: ")


@pytest.mark.process
@pytest.mark.parametrize("arguments", [("advisor", "models"), ("advisor", "--help"), ("calibrate", "--help")])
def test_a_reader_that_is_gone_has_a_code_of_its_own(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = as_module(*arguments, stdout=writing)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
