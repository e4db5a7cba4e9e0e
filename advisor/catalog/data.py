"""Where the catalog's files are: the folders of the package `profiles`, unpacked on disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import profiles

if TYPE_CHECKING:
    from pathlib import Path

_ROOT = os.path.dirname(os.path.abspath(profiles.__file__))


def data_text(folder: str, name: str) -> str:
    """Text of a file of the catalog: `folder` is models or gpus."""
    with open(os.path.join(_ROOT, folder, name), encoding="utf-8") as file:
        return file.read()


def data_folder(folder: str) -> Path:
    """One of the folders as a path, to list it."""
    from pathlib import Path  # slow to load, and only those who list a folder need it

    return Path(_ROOT, folder)
