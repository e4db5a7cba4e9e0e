"""The page in a folder: all of it or nothing, and nobody else's files are touched unasked."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from advisor.errors import BadValue, SourceUnavailable
from advisor.site.files import LIST, WRITER


def save_page(files: Mapping[str, bytes], folder: str, force: bool = False) -> None:
    """Write the page into a new or empty folder, or into one that holds an earlier page.

    With `force` other files may be there; they stay. Raises BadValue for a place that may not be written to,
    SourceUnavailable for one that cannot be.
    """
    place = Path(os.path.abspath(os.path.expanduser(folder)))
    try:
        others = _others(place, folder)
        if others and not force:
            why = f"holds other files ({others[0]}, ...): name another folder, or add --force, which keeps them"
            raise BadValue("--to", folder, why)
        if not others and place in (Path.cwd(), *Path.cwd().parents):
            raise BadValue("--to", folder, "the current folder is inside; name one of its own for the page")
        (_put_beside if others else _replace)(place, files)
    except OSError as error:
        raise SourceUnavailable(f"--to {folder}: cannot be written ({error.strerror or error})") from None


def _others(place: Path, folder: str) -> list[str]:
    """Names in the folder that no earlier page wrote."""
    if not os.path.lexists(place):
        return []
    if not place.is_dir() or place.is_symlink():
        raise BadValue("--to", folder, "is no folder; name a new one")
    return sorted(set(os.listdir(place)) - _of_page(place))


def _of_page(place: Path) -> set[str]:
    """What the list of an earlier page names; none where there is no such list."""
    try:
        listed = json.loads((place / LIST).read_text(encoding="utf-8"))
        found = listed["files"] if listed["written_by"] == WRITER else []
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def _replace(place: Path, files: Mapping[str, bytes]) -> None:
    """Put a finished copy in the folder's place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    draft, old = (place.with_name(f".{place.name}.{mark}.{kind}") for kind in ("new", "old"))
    draft.mkdir()
    try:
        for name, data in files.items():
            (draft / name).write_bytes(data)
        if place.exists():
            os.rename(place, old)
        try:
            os.rename(draft, place)
        except OSError:
            if old.exists():
                os.rename(old, place)
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _put_beside(place: Path, files: Mapping[str, bytes]) -> None:
    """Put the page among files of others: all of it is written before the first file is renamed to its place."""
    stale = _of_page(place) - files.keys()
    draft = place / f".{uuid.uuid4().hex}.new"
    draft.mkdir()
    try:
        for name, data in files.items():
            (draft / name).write_bytes(data)
        for name in files:
            os.replace(draft / name, place / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for name in stale:
        if os.path.basename(name) == name:
            (place / name).unlink(missing_ok=True)
