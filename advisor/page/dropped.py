"""A data file that a person drops on the page: how long its rows are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from advisor.errors import BadValue
from advisor.page.markup import grid
from advisor.rules.wording import cut_text, tokens_text

FOLDER = "/dropped"
"""Where a page's worker shows dropped files to Python, which reads them from disk piece by piece."""
LONGEST_NAME = 120
_ABOUT_ROWS = ("seq_len", "micro_batch", "batch_size", "epochs", "packing")
progress: Callable[[int, int], None] | None = None
"""Told how many of how many bytes of a data file are read."""


def counted(values: Mapping[str, str | bool], name: str) -> dict[str, Any]:
    """How long the rows of a data file are, and the knobs that say so.

    Raises BadValue, InputError or SourceUnavailable for a file that cannot be used.
    """
    from advisor.advice.data import describe

    path = os.path.join(FOLDER, plain_name(name))
    about = {knob: value for knob, value in values.items() if knob in _ABOUT_ROWS}
    found = describe(path, {**about, "skip_bad_lines": True}, progress).summary
    percentiles = [(f"{share:g} %", f"{tokens:,}") for share, tokens in found.percentiles]
    said = (
        f"{found.rows:,} rows, {tokens_text(found.mean_tokens)} tokens on average, {tokens_text(found.longest_tokens)} "
        f"the longest; {cut_text(found)}. Tokens: {found.counted_by}."
    )
    if found.bad_lines:
        said += f" {found.bad_lines:,} rows cannot be read and are left out."
    mean = min(max(1, round(found.mean_tokens.likely)), found.seq_len)
    return {
        "verdict": said,
        "state": "",
        "html": grid("Tokens that so many rows do not exceed", ("rows", "tokens"), percentiles),
        "knobs": {"examples": str(found.rows), "seq_len": str(found.seq_len), "mean_seq_len": str(mean)},
    }


def plain_name(name: str) -> str:
    """A file's name without folders. Raises BadValue."""
    if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME or os.path.basename(name) != name or "\\" in name:
        raise BadValue("name of the file", name, f"must be a plain name of at most {LONGEST_NAME} letters")
    return name
