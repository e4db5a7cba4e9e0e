"""Whether the twelve public files of the tests are told right: what each means beside what the file itself does.

    python -m benchmarks.public_files FOLDER

FOLDER holds a check-out of each repository under its name without the owner, at the commit that is given there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from advisor.configs.reading import read_config
from tests.configs.public_files import PUBLIC_FILES
from tests.configs.test_public_files import OPEN, written


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
def main(folder: str) -> None:
    """Compare each description with its file in FOLDER; ends with 1 where one differs."""
    differs = 0
    for one in PUBLIC_FILES:
        path = Path(folder) / one.repository.split("/")[-1] / one.path
        if not path.is_file():
            print(f"{'not here':10} {path}")
            continue
        read = read_config(str(path)).found
        with TemporaryDirectory() as place:
            told = read_config(written(Path(place), one)).found
        same = all(getattr(read, key) == getattr(told, key) for key in ("knobs", *OPEN))
        same = same and (read.unread, read.other) == ((), ())
        differs += not same
        print(f"{'same' if same else 'differs':10} {one.repository} {one.path}")
    sys.exit(1 if differs else 0)


if __name__ == "__main__":
    main()
