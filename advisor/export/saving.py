"""Files to run, written into a folder; the one that names the others comes last, so it never stands alone."""

from __future__ import annotations

import os
from pathlib import Path

from advisor.errors import BadValue, SourceUnavailable
from advisor.export.run import TrainingFile
from advisor.files.written import write_text


def save(file: TrainingFile, folder: str, force: bool = False) -> tuple[str, ...]:
    """Write the file, and those that it needs beside it, into `folder`, which is made; returns their paths.

    Raises BadValue for a file that exists, without `force`; SourceUnavailable where nothing can be written.
    """
    texts = {os.path.join(folder, name): text for name, text in (*file.beside, (file.name, file.text))}
    for path in texts:
        if os.path.lexists(path) and not force:
            raise BadValue("--write", path, "exists already; add --force to replace it, or --to DIR for another folder")
    try:
        os.makedirs(folder or ".", exist_ok=True)
    except OSError as error:
        raise SourceUnavailable(f"--to {folder!r}: cannot be made ({error.strerror or error})") from None
    for path, text in texts.items():
        write_text(Path(path), text, "--write", force)
    return tuple(reversed(texts))
