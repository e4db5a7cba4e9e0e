"""The skill's commands run as they stand, and it stays short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from advisor.cli import cli
from tests.configs.test_formats import AXOLOTL_QLORA

SKILL = Path(__file__).resolve().parent.parent / "docs" / "skill" / "finetune-advisor" / "SKILL.md"
COMMANDS = re.findall(r"^uvx finetune-advisor (.*)$", SKILL.read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.yaml").write_text(AXOLOTL_QLORA)
    result = CliRunner().invoke(cli, shlex.split(command))
    assert result.exit_code in (0, 5), result.output
    assert result.stdout.startswith(("{", "["))


def test_it_names_itself_and_is_short() -> None:
    text = SKILL.read_text()
    assert text.startswith(f"---\nname: {SKILL.parent.name}\ndescription: ")
    assert len(text) < 3500
    assert len(COMMANDS) == 2
