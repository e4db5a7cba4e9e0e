"""The terminal: its width, its styles, and what it cannot show."""

from __future__ import annotations

import io

import pytest

from advisor.render.console import console_for, heading, new_table, print_table, say


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


def printed(file: io.StringIO) -> str:
    console = console_for(file)
    heading(console, "Title")
    say(console, "text", style="dim")
    return file.getvalue()


def test_only_a_terminal_gets_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    styled = "\n\x1b[1mTitle\x1b[0m\n\x1b[2mtext\x1b[0m\n"
    assert printed(io.StringIO()) == "\nTitle\ntext\n"
    assert printed(Terminal()) == styled
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert printed(io.StringIO()) == styled
    monkeypatch.setenv("TERM", "dumb")
    assert printed(Terminal()) == "\nTitle\ntext\n"


@pytest.mark.parametrize(
    ("columns", "width"), [("200", 80), ("80", 80), ("60", 60), ("10", 40), ("0", 80), ("wide", 80)]
)
def test_lines_are_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    file = io.StringIO()
    say(console_for(file), "word " * 40, indent=2)
    first, *others = file.getvalue().splitlines()
    assert width - 5 <= max(map(len, (first, *others))) <= width
    assert all(line.startswith("  word") for line in others)


def test_a_table_keeps_its_columns_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = new_table(ascii_only=True)
    for name in ("one", "two"):
        table.add_column(name)
    table.add_row("x" * 30, "y" * 30)
    file = io.StringIO()
    print_table(file, table)
    assert file.getvalue().splitlines() == [f"one{'':29}two{'':27}", "-" * 62, f"{'x' * 30}  {'y' * 30}"]


def test_control_characters_are_left_out() -> None:
    file = io.StringIO()
    console_for(file).print("a\x07b\rc")
    assert file.getvalue() == "abc\n"


def test_an_encoding_without_blocks_is_known() -> None:
    assert console_for(io.TextIOWrapper(io.BytesIO(), "ascii")).ascii_only
    assert not console_for(io.TextIOWrapper(io.BytesIO(), "utf-8")).ascii_only
