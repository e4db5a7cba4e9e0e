"""Folders of other library versions: what is planned and said. Nothing is downloaded here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from advisor.errors import SourceUnavailable
from calibrate import stacks
from calibrate.options import recipe_of
from calibrate.stacks import NotInstalled, beside, folder_of, folders, gap_notes, installed_stack, is_complete, make

INSTALLED = {"transformers": "5.23.0", "peft": "0.21.2", "bitsandbytes": "0.50.2", "torch": "2.13.0+cpu"}


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_ADVISOR_DATA", str(tmp_path))
    installed(monkeypatch)


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    found = INSTALLED | versions

    def version(name: str) -> str:
        if not found.get(name):
            raise stacks.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(stacks.metadata, "version", version)
    installed_stack.cache_clear()


def distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    path = folder / f"{name}-{version}.dist-info"
    path.mkdir()
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (path / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")


def test_a_stack_needs_folders_for_what_is_not_installed() -> None:
    assert beside(("transformers-4.57",)) == ("transformers-4.57", "peft-0.17", "bitsandbytes-0.48")
    assert beside(("peft-0.11", "torch-2.6")) == ("peft-0.11",)
    assert beside(()) == beside(("transformers-5.23",)) == ()


def test_a_missing_folder_names_the_command() -> None:
    with pytest.raises(NotInstalled, match=r"peft-0\.11 cannot be traced.*run `calibrate stack peft-0.11`"):
        folders(("peft-0.11",))


def test_a_folder_gets_what_its_library_requires_and_nothing_that_is_there() -> None:
    asked: list[Sequence[str]] = []

    def pip(folder: Path, requirements: Sequence[str]) -> None:
        asked.append(requirements)
        if len(asked) == 1:
            distribution(folder, "transformers", "4.57.6", "torch>=2; extra == 'torch'", "peft>=0.1", "hub<1", "old>=2")
        else:
            distribution(folder, "hub", "0.36.0", "transformers<5")
            distribution(folder, "old", "2.1")

    path = make("transformers-4.57", pip)
    assert asked == [["transformers==4.57.*"], ["hub<1", "old>=2"]]
    assert is_complete("transformers-4.57")
    assert folders(("transformers-4.57",)) == (path,) == (folder_of("transformers-4.57"),)


def test_of_bitsandbytes_only_the_cpu_part_stays() -> None:
    def pip(folder: Path, requirements: Sequence[str]) -> None:
        distribution(folder, "bitsandbytes", "0.42.0")
        (folder / "bitsandbytes").mkdir()
        for part in ("cpu", "cuda118", "cuda121_nocublaslt"):
            (folder / "bitsandbytes" / f"libbitsandbytes_{part}.so").touch()

    path = make("bitsandbytes-0.42", pip)
    assert [one.name for one in path.glob("bitsandbytes/*.so")] == ["libbitsandbytes_cpu.so"]


def test_an_interrupted_folder_is_made_again() -> None:
    def pip(folder: Path, requirements: Sequence[str]) -> None:
        assert not list(folder.iterdir())
        raise SourceUnavailable("pip cannot install peft==0.11.*: no network")

    (folder_of("peft-0.11") / "peft").mkdir(parents=True)
    with pytest.raises(SourceUnavailable, match="no network"):
        make("peft-0.11", pip)
    assert not is_complete("peft-0.11")


def test_the_mirrored_versions_need_no_stack() -> None:
    assert installed_stack() == ()
    assert recipe_of("lora", {})[0].stack == ()


def test_other_installed_versions_are_the_stack_of_every_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, transformers="4.57.6", peft="0.17.1")
    names = ("transformers-4.57", "peft-0.17", "bitsandbytes-0.50", "torch-2.13")
    assert installed_stack() == names
    assert recipe_of("lora", {})[0].stack == names
    assert recipe_of("lora", {"stack": "peft-0.11"})[0].stack == ("peft-0.11",)
    installed_stack.cache_clear()


def test_without_all_libraries_nothing_is_said_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, bitsandbytes="", transformers="4.57.6")
    assert installed_stack() == ()


def test_versions_that_were_not_traced_are_one_line() -> None:
    assert gap_notes(()) == gap_notes(("transformers-5.0",)) == []
    (line,) = gap_notes(("transformers-4.52", "peft-0.15", "bitsandbytes-0.50"))
    assert "read, not traced: transformers 4.52 (traced: 4.50 and 4.57)" in line
    (line,) = gap_notes(("transformers-5.30", "peft-0.21", "bitsandbytes-0.50"))
    assert "neither read nor traced: transformers 5.30 (traced: 5.23)" in line
