"""What a person drops on the page: a training configuration to judge, or a data file whose rows are counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from advisor.advice.check import Checked, check
from advisor.advice.phrases import checked_line
from advisor.errors import BadValue
from advisor.page.flags import texts_of
from advisor.page.markup import bullets, folded, grid, linked, paragraph, setting
from advisor.page.names import Names
from advisor.rules.wording import cut_text, tokens_text

FOLDER = "/dropped"
"""Where a page's worker shows dropped files to Python, which reads them from disk piece by piece."""
LONGEST_NAME = 120
_ABOUT_ROWS = ("model", "seq_len", "micro_batch", "batch_size", "epochs", "packing")
progress: Callable[[int, int], None] | None = None
"""Told how many of how many bytes of a data file are read."""


def checked(values: Mapping[str, str | bool], name: str, text: str) -> dict[str, Any]:
    """The verdict on the run that the text of a configuration file describes, on the card in question.

    Raises BadConfig, InputError or BadValue as `advice.check.check` does.
    """
    gpu = str(values.get("gpu", "")) or None
    found = check(_plain_name(name), gpu, text=text, catalog=Names())
    knobs = texts_of(use.flags for use in found.uses)
    if gpu:
        knobs["gpu"] = gpu
    return {"verdict": checked_line(found), "state": found.verdict, "html": _checked_html(found), "knobs": knobs}


def _checked_html(found: Checked) -> str:
    uses = [(escape(one.key or "(by itself)"), escape(one.value), escape(one.flags)) for one in found.uses]
    unread = [f"line {one.line}, {one.key}: {one.value} ({one.why})" for one in found.unread]
    edits = (
        f"{linked(edit.text)} {setting('Use this', knobs) if (knobs := texts_of(edit.flags)) else ''}"
        + (f'<pre class="diff">{escape(edit.diff)}</pre>' if edit.diff else "")
        for edit in found.edits
    )
    return "".join(
        (
            bullets(map(linked, found.why)),
            folded("Left out, and may need more", bullets(map(linked, unread))),
            bullets(map(linked, (f"not known: {one}" for one in found.not_known))),
            bullets(map(linked, (f"assumed: {one}" for one in found.assumed))),
            folded("What one change brings", bullets(edits, "changes")),
            folded("How each key was read", grid("Keys", ("key", "value", "flags"), uses)),
            paragraph(f"Changes neither memory nor time: {', '.join(found.idle)}.") if found.idle else "",
        )
    )


def counted(values: Mapping[str, str | bool], name: str) -> dict[str, Any]:
    """How long the rows of a data file are, and the knobs that say so.

    Raises BadValue, InputError or SourceUnavailable for a file that cannot be used.
    """
    from advisor.advice.data import describe

    path = os.path.join(FOLDER, _plain_name(name))
    about = {knob: value for knob, value in values.items() if knob in _ABOUT_ROWS and knob != "model"}
    found = describe(path, {**about, "skip_bad_lines": True}, progress).summary
    percentiles = [(f"{share:g} %", f"{tokens:,}") for share, tokens in found.percentiles]
    said = (
        f"{found.rows:,} rows, {tokens_text(found.mean_tokens)} tokens on average, {tokens_text(found.longest_tokens)} "
        f"the longest; {cut_text(found)}. Counted by {found.counted_by}."
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


def _plain_name(name: str) -> str:
    """A file's name without folders. Raises BadValue."""
    if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME or os.path.basename(name) != name or "\\" in name:
        raise BadValue("name of the file", name, f"must be a plain name of at most {LONGEST_NAME} letters")
    return name
