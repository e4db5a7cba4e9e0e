"""README.md says what the code does: its generated parts are current, its commands run, what it names exists."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from advisor import cli as door
from advisor.command import EXIT_INTERRUPTED
from advisor.errors import InputError, SourceUnavailable
from benchmarks.readme import DOCUMENTS, PARTS, README, parts_of, regenerate
from tests.configs.test_formats import AXOLOTL_QLORA

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
CURRENT = "out of date: python -m benchmarks.readme --write"
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
ADVISE = [line for line in COMMANDS if line.startswith("advise ")]
CALIBRATE = [line for line in COMMANDS if line.startswith("calibrate ")]


@pytest.fixture(scope="module")
def made_anew() -> dict[str, str]:
    return parts_of(regenerate(TEXT))


def test_every_part_is_there_once() -> None:
    assert re.findall(r"<!-- generated: (\w+) -->", TEXT) == list(PARTS)
    assert list(parts_of(TEXT)) == list(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_generated_parts_are_current(name: str, made_anew: dict[str, str]) -> None:
    assert parts_of(TEXT)[name] == made_anew[name], CURRENT


@pytest.mark.parametrize(("path", "parts"), DOCUMENTS[1:])
def test_the_documents_beside_it_are_current(path: Path, parts: Mapping[str, Callable[[str], str]]) -> None:
    text = path.read_text(encoding="utf-8")
    assert list(parts_of(text)) == list(parts)
    assert parts_of(text) == parts_of(regenerate(text, parts)), CURRENT


def test_a_spoiled_part_is_made_anew(made_anew: dict[str, str]) -> None:
    spoiled = TEXT.replace("| ADV010 |", "| ADV001 |")
    assert parts_of(spoiled)["rules"] != made_anew["rules"]
    assert parts_of(regenerate(spoiled)) == made_anew


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(KeyError, match="weather"):
        regenerate("<!-- generated: weather -->\n<!-- end -->")


def test_the_screen_is_plain_and_eighty_columns_wide() -> None:
    screen = parts_of(TEXT)["screen"]
    assert screen.splitlines()[1].startswith("Use DoRA r=16: llama-3.1-8b")
    assert "\x1b" not in screen
    assert max(map(len, screen.splitlines())) <= 80


def test_it_stays_short() -> None:
    assert len(TEXT.splitlines()) <= 400
    prose = [line for line in TEXT.splitlines() if not line.startswith(("|", "advise "))]
    assert max(map(len, prose)) <= 120


def test_commands_were_found() -> None:
    assert len(ADVISE) == 15
    assert len(CALIBRATE) == 5


@pytest.mark.parametrize("line", ADVISE)
def test_the_quoted_questions_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog_file = resources.files("profiles") / "models" / "qwen2.5-0.5b.json"
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text(json.dumps(json.loads(catalog_file.read_text())["config"]))
    (tmp_path / "train.jsonl").write_text('{"text": "' + "word " * 100 + '"}\n')
    (tmp_path / "train.yaml").write_text(AXOLOTL_QLORA)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(door.cli, shlex.split(line)[1:])
    if "--gpu auto" in line and result.exit_code == SourceUnavailable.exit_code:
        assert "--gpu auto" in result.stderr  # read so far: this machine has no driver
    else:
        assert result.exit_code == (door.EXIT_NOTHING_FITS if "llama-70b" in line else 0), result.output


@pytest.mark.parametrize("line", CALIBRATE)
def test_the_quoted_calibrations_can_be_asked(line: str) -> None:
    from calibrate.commands import command
    from calibrate.options import config_of, methods_of

    words = shlex.split(line)[1:]
    context = command.make_context("calibrate", list(words))
    if words[0] in command.commands:
        command.commands[words[0]].make_context(words[0], words[1:])
        return
    assert context.params["dry_run"] == ("--dry-run" in words)
    assert len(methods_of(",".join(context.params["methods"]) or "all")) == 5
    assert all(config_of(name)["model_type"] for name in context.params["models"])


def test_what_it_names_exists() -> None:
    figures = TEXT.partition("| `benchmarks.NAME` |")[2].partition("\n\n")[0]
    for name in [*re.findall(r"^\| `(\w+)", figures, re.MULTILINE), *re.findall(r"-m benchmarks\.([a-z]\w*)", TEXT)]:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name
    for target in re.findall(r"`make ([\w-]+)`", TEXT):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / link).is_file(), link


def test_the_exit_codes_are_those_of_the_code() -> None:
    sentence = TEXT.partition("\nExit codes: ")[2].partition(". ")[0].partition("\n`")[0]
    codes = [int(code) for code in re.findall(r"\*\*(\d+)\*\*", sentence)]
    assert codes == [
        0,
        InputError.exit_code,
        door.EXIT_NOTHING_FITS,
        SourceUnavailable.exit_code,
        EXIT_INTERRUPTED,
    ]
