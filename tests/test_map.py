"""docs/architecture.md says what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def contract() -> list[str]:
    """The layers of `advisor`, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (one["layers"] for one in settings["tool"]["importlinter"]["contracts"] if one["id"] == "advisor")
    return list(layers)


def drawn(text: str) -> list[str]:
    found = re.search(r"<!-- layers -->\n```text\n(.*?)```", text, re.S)
    assert found is not None
    return found[1].split("\n")[:-1]


def modules(package: str) -> set[str]:
    """Folders ('tape/') and modules ('specs') of a package."""
    folder = ROOT / package
    found = {f"{one.name}/" for one in folder.iterdir() if (one / "__init__.py").is_file()}
    return found | {one.stem for one in folder.glob("*.py") if one.stem not in ("__init__", "__main__")}


def first_cells(text: str, heading: str) -> set[str]:
    """What stands in backquotes in the first column of the table under `heading`."""
    table = text[text.index(heading) :].split("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_the_layers_drawn_are_the_contract() -> None:
    assert drawn(MAP) == contract()


def test_a_layer_left_out_is_noticed() -> None:
    assert drawn(MAP.replace("\ntape\n", "\n", 1)) != contract()


def test_every_folder_and_module_of_advisor_has_its_line() -> None:
    named = first_cells(MAP, "| folder or module of `advisor` |")
    assert {one for one in named if one != "catalog/families/"} == modules("advisor")
    assert (ROOT / "advisor" / "catalog" / "families").is_dir()


def test_the_folder_of_calibrate_is_the_one_named() -> None:
    named = first_cells(MAP, "| folder or module of `calibrate` |")
    assert named == {one for one in modules("calibrate") if one.endswith("/")}


PATHS = sorted(
    set(re.findall(r"`((?:advisor|calibrate|profiles|tests|benchmarks|decoders|costs|files|stacks)/[\w./]*)`", MAP))
)


def test_paths_are_named() -> None:
    assert len(PATHS) > 20


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path: str) -> None:
    """In capitals stands what a reader puts in: then its folder must be there, with files of that kind."""
    if any(word in path for word in ("NAME", "GENERATION")):
        pattern = path.replace("NAME", "*").replace("GENERATION", "*")
        assert list(ROOT.glob(pattern))
    else:
        assert (ROOT / path).exists() or (ROOT / "advisor" / path).exists()


def test_each_word_of_the_glossary_stands_once() -> None:
    rows = MAP[MAP.index("| word | meaning |") :].split("\n\n")[0].splitlines()[2:]
    words = [row.split("|")[1].strip() for row in rows]
    assert len(words) == len(set(words)) > 15
