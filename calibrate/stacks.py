"""Folders of other library versions, which a dry run puts in front of the installed ones. Needs no torch.

Each library has a folder of its own, `stacks/transformers-4.57` in the user's data folder, with the newest release of
that minor version and whatever it requires that is not installed in a version that it accepts. So folders of several
libraries can be used together. PyTorch is always the installed one: a trace shows its CPU kernels anyway.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from advisor.errors import BadValue, SourceUnavailable
from advisor.files.checked import data_folder
from advisor.libraries import MIRRORED, OLDEST, Version, gaps, libraries_of, read_stack_name, version_text

LIBRARIES = ("transformers", "peft", "bitsandbytes")
"""Those that can stand beside the installed ones."""
COMPLETE = "complete"
"""The file that is written last: a folder without it was interrupted."""


class NotInstalled(SourceUnavailable):
    """A folder of library versions that a dry run needs is missing."""


def folder_of(name: str) -> Path:
    """Where the library version `name`, such as 'peft-0.13', is or would be."""
    return data_folder() / "stacks" / name


@cache
def installed_stack() -> tuple[str, ...]:
    """The installed libraries as a recipe's `stack`: () where they are the mirrored ones, or not all installed.

    Versions that are older than any that is mirrored count as the oldest that is.
    """
    found: list[str] = []
    for library, oldest in OLDEST.items():
        name = installed_name(library)
        if not name:
            return ()
        _, version = read_stack_name(name) if _version(name) >= oldest else (library, oldest)
        found.append(f"{library}-{version_text(version)}")
    return () if libraries_of(tuple(found)) == MIRRORED else tuple(found)


def _version(name: str) -> Version:
    major, _, minor = name.rpartition("-")[2].partition(".")
    return int(major), int(minor)


def gap_notes(names: tuple[str, ...]) -> list[str]:
    """One line where versions of a stack were not traced, [] where all were."""
    parts = zip(("read, not traced: ", "neither read nor traced: "), gaps(libraries_of(names)), strict=True)
    found = [how + ", ".join(libraries) for how, libraries in parts if libraries]
    return [f"versions of the libraries whose step was {'; '.join(found)}"] if found else []


def installed_name(library: str) -> str:
    """The installed version of a library, as 'peft-0.21'; '' if there is none."""
    try:
        major, minor = metadata.version(library).split(".")[:2]
    except metadata.PackageNotFoundError:
        return ""
    return f"{library}-{major}.{minor}"


def beside(names: tuple[str, ...]) -> tuple[str, ...]:
    """The libraries of a stack, those that it implies too, that are not the installed versions. PyTorch is left out.

    Raises BadValue where it names a trainer's own code, which neither a dry run nor a burst runs.
    """
    libraries = libraries_of(names)
    if libraries.code:
        raise BadValue("--stack", ",".join(names), f"calibrate runs transformers' own code: leave out {libraries.code}")
    found = (f"{library}-{version_text(getattr(libraries, library))}" for library in LIBRARIES)
    return tuple(name for name in found if names and name != installed_name(name.rpartition("-")[0]))


def is_complete(name: str) -> bool:
    """Whether the folder of a library version was made to its end."""
    return (folder_of(name) / COMPLETE).is_file()


def folders(names: Sequence[str]) -> tuple[Path, ...]:
    """The folders of `names`, complete. Raises NotInstalled with the command that makes those that are missing."""
    missing = [name for name in names if not is_complete(name)]
    if missing:
        raise NotInstalled(
            f"{', '.join(missing)} cannot be traced: not on this machine; run `calibrate stack {' '.join(missing)}`"
        )
    return tuple(map(folder_of, names))


Pip = Callable[[Path, Sequence[str]], None]
"""Installs requirements into a folder, without what these require."""


def make(name: str, pip: Pip) -> Path:
    """Install one library version and what it needs into its folder. Raises SourceUnavailable."""
    library, _, version = name.rpartition("-")
    folder = folder_of(name)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        wanted = [f"{library}=={version}.*"]
        while wanted:
            pip(folder, wanted)
            wanted = unmet(folder)
        for part in folder.glob("bitsandbytes/libbitsandbytes_*.so"):
            if "cpu" not in part.name:  # kernels of cards: hundreds of megabytes that no trace runs
                part.unlink()
        (folder / COMPLETE).touch()
    except OSError as error:
        raise SourceUnavailable(
            f"cannot make {folder}: {error}; set FINETUNE_ADVISOR_DATA to a writable folder"
        ) from None
    return folder


def unmet(folder: Path) -> list[str]:
    """Requirements of the distributions in `folder` that neither they nor the installed ones meet, sorted."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    there = list(metadata.distributions(path=[str(folder)]))
    versions = {canonicalize_name(one.name): one.version for one in there}
    wanted: dict[str, str] = {}
    for text in (text for one in there for text in one.requires or ()):
        need = Requirement(text)
        name = canonicalize_name(need.name)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = versions.get(name) or metadata.version(need.name)
        except metadata.PackageNotFoundError:
            version = ""
        if not version or not need.specifier.contains(version, prereleases=True):
            wanted[name] = ",".join(filter(None, (wanted.get(name, ""), str(need.specifier))))
    return [f"{name}{specifier}" for name, specifier in sorted(wanted.items())]


def run_pip(folder: Path, requirements: Sequence[str]) -> None:
    """Pip of this interpreter. Raises SourceUnavailable with its last line."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--upgrade", "--target", str(folder), *requirements], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise SourceUnavailable(f"pip cannot install {' '.join(requirements)}: {last[:300]}")
