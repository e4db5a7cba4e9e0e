"""What a data file says about the job: how many rows, and roughly how long they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from advisor.errors import BadValue, SourceUnavailable

CHARACTERS_PER_TOKEN = 4
"""A rough mean for English text with today's vocabularies; other languages and code have fewer."""

_MAX_LINE_CHARACTERS = 64 * 1024**2


class DataSummary(NamedTuple):
    """Rows of a file and their estimated lengths in tokens."""

    rows: int
    mean_tokens: int
    longest_tokens: int
    characters_per_token: int = CHARACTERS_PER_TOKEN


def summarize(path: str) -> DataSummary:
    """Count the rows of a .jsonl or .txt file; a row's tokens are its characters / 4.

    All texts inside a JSON row count, its keys do not. Empty lines are skipped.
    Raises BadValue for a file of another kind or without rows, SourceUnavailable for one that cannot be read.
    """
    kind = os.path.splitext(path)[1].lower()
    if kind not in (".jsonl", ".txt"):
        raise BadValue("--data", path, "must be a .jsonl or .txt file; or give --examples N")
    if os.path.exists(path) and not os.path.isfile(path):
        raise BadValue("--data", path, "not a regular file")
    lengths = _row_lengths(path, is_json=kind == ".jsonl")
    rows = total = longest = 0
    try:
        for length in lengths:
            rows, total, longest = rows + 1, total + length, max(longest, length)
    except OSError as error:
        raise SourceUnavailable(f"cannot read --data {path!r}: {error.strerror or error}") from error
    if rows == 0:
        raise BadValue("--data", path, "the file has no rows; give --examples N instead")
    return DataSummary(rows, max(1, round(total / rows)), max(1, longest))


def _row_lengths(path: str, is_json: bool) -> Iterator[int]:
    """Estimated tokens of each row."""
    with open(path, encoding="utf-8", errors="replace") as file:
        number = 0
        while line := file.readline(_MAX_LINE_CHARACTERS + 1):
            number += 1
            if len(line) > _MAX_LINE_CHARACTERS:
                raise BadValue("--data", path, f"line {number} is longer than 64 MiB")
            if not line.strip():
                continue
            characters = _json_characters(line, path, number) if is_json else len(line.strip())
            yield max(1, -(-characters // CHARACTERS_PER_TOKEN))


def _json_characters(line: str, path: str, number: int) -> int:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise BadValue("--data", path, f"line {number} is not JSON") from None
    characters, waiting = 0, [row]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            characters += len(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return characters
