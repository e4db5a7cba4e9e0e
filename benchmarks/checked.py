"""What `advise check` says of the configuration files that people publish.

    python -m benchmarks.checked configs.csv FOLDER

`configs.csv` is that of `benchmarks.survey`; FOLDER holds a check-out of each repository under its name without the
owner. Counts verdicts of the files of one card, text and supervised fine-tuning, and in how many files each reason for
none stands, in how many of them alone.
"""

from __future__ import annotations

import csv
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from advisor.advice.check import check
from advisor.errors import AdvisorError
from benchmarks.survey import ASKED, CARD

READABLE = (".yaml", ".yml", ".py", ".ipynb", ".sh")
"""Endings of files; others are documents with commands in them."""


class Judged(NamedTuple):
    """A file with its verdict, or 'refused' or 'traceback', and why it is not known."""

    tool: str
    verdict: str
    why: tuple[str, ...]


def judged(tool: str, path: Path) -> Judged:
    """What is said of one file on the card that nearly all files leave open."""
    try:
        found = check(str(path), CARD)
    except AdvisorError as error:
        return Judged(tool, "refused", (str(error).replace(str(path), "FILE"),))
    except Exception:
        traceback.print_exc()
        return Judged(tool, "traceback", (str(path),))
    return Judged(tool, found.verdict, found.why)


def lines(found: list[Judged]) -> Iterator[str]:
    """Verdicts by tool, and the reasons of those that have none."""
    for tool in (*dict.fromkeys(one.tool for one in found), "all"):
        counts = Counter(one.verdict for one in found if tool in ("all", one.tool))
        known = sum(counts[word] for word in ("fits", "tight", "does_not_fit"))
        yield f"{tool:20} {sum(counts.values()):4}  verdict {known / sum(counts.values()):4.0%}  {dict(counts)}"
    files = [{_key(text) for text in one.why} for one in found if one.why]
    for key, count in Counter(key for keys in files for key in keys).most_common():
        yield f"{count:5}  {sum(keys == {key} for keys in files):4} alone  {key}"


def _key(text: str) -> str:
    """The key that makes a verdict unknown, with why, or what the whole is refused for."""
    key, why = re.match(r"(?:line \d+, )?([\w.*]+): ", text), re.search(r"\(([^()]*)\)$", text)
    return (
        f"{key[1]} ({why[1]})" if key and why else re.sub(r"^.*?( is neither in the catalog)", r"a model\1", text)[:110]
    )


@click.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
def main(path: str, folder: str) -> None:
    """Judge every file of PATH that is in FOLDER."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["modality"] == "text" and row["expressible"] in ASKED]
    files = {(row["tool"], Path(folder) / row["repo"].split("/")[-1] / row["path"]) for row in rows}
    here = sorted((tool, one) for tool, one in files if one.suffix in READABLE and one.is_file())
    print("\n".join(lines([judged(tool, one) for tool, one in here])))


if __name__ == "__main__":
    sys.exit(main())
