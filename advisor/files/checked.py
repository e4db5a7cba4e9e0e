"""Files of the user's data folder in which one wrong byte would mean a wrong answer: JSON with a checksum.

{"schema_version": 1, "checksum": "SHA-256 of the profile's own text", "profile": {...}}
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.errors import AdvisorError, BadConfig
from advisor.files.guarded import read_bytes

FOLDER_VARIABLE = "FINETUNE_ADVISOR_DATA"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
"""Libraries whose versions decide whether a trace or a measurement is still valid."""


def data_folder() -> Path:
    """Where the user's data is kept: FINETUNE_ADVISOR_DATA, or this program's folder for user data."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given)
    from platformdirs import user_data_path

    return user_data_path("finetune-advisor", appauthor=False)


def installed_version(library: str) -> str | None:
    """The version that is installed; None where it is not, and nothing is known about the training machine's."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return None


def file_text(version: int, profile: Mapping[str, Any]) -> str:
    """The file's text for a profile."""
    body = canonical_text(profile)
    return f'{{"schema_version": {version}, "checksum": "{text_hash(body)}",\n"profile": {body}}}\n'


def read_file(
    path: Path, version: int, limit_bytes: int, what: str, again: str, error: type[BadConfig]
) -> tuple[str, dict[str, Any]]:
    """(checksum, profile) of a file. Raises `error`, which names `what` it should be and how to make it `again`."""
    try:
        found = json.loads(read_bytes(path, f"{path}: {what}", again, limit_bytes).decode("utf-8"))
    except AdvisorError as problem:
        raise error(str(problem)) from None
    except (ValueError, RecursionError):
        raise error(f"{path}: {what} is damaged (not JSON); {again}") from None
    stated = found.get("schema_version") if isinstance(found, dict) else None
    if stated != version:
        raise error(f"{path}: {what} has version {str(stated)[:20]}, this program reads {version}; {again}")
    profile = found.get("profile")
    if not isinstance(profile, dict) or found.get("checksum") != text_hash(canonical_text(profile)):
        raise error(f"{path}: {what} is damaged (its checksum differs); {again}")
    return found["checksum"], profile


def canonical_text(value: object) -> str:
    """One JSON text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def text_hash(text: str) -> str:
    """Its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()
