"""A training configuration that a person drops on the page, judged: loaded with the first of them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from advisor.advice.check import Checked, check
from advisor.advice.phrases import checked_line
from advisor.configs.reading import text_alone
from advisor.page.dropped import plain_name
from advisor.page.flags import texts_of
from advisor.page.markup import bullets, folded, grid, linked, paragraph, setting
from advisor.page.names import Names


def checked(values: Mapping[str, str | bool], name: str, text: str) -> dict[str, Any]:
    """The verdict on the run that the text of a configuration file describes, on the card in question.

    Raises BadConfig, InputError or BadValue as `advice.check.check` does.
    """
    gpu = str(values.get("gpu", "")) or None
    found = check(text_alone(plain_name(name), text), gpu, catalog=Names())
    knobs = texts_of(use.flags for use in found.uses)
    if gpu:
        knobs["gpu"] = gpu
    if found.advice is not None:
        knobs |= {"trainer": found.advice.trainer.name, "examples": str(found.advice.workload.examples)}
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
