"""HTML of sentences, lists and buttons. Every text is escaped; no style and no script stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from re import sub

_ADDRESS = r"https://[^\s<>&;,)]+[^\s<>&;,.)]"


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page with its heading; '' where there is nothing in it."""
    body = "".join(parts)
    if not body:
        return ""
    heading = f'<h2 id="{name}-title">{escape(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}{body}</section>'


def folded(title: str, *parts: str) -> str:
    """What opens when its title is pressed; '' where there is nothing in it."""
    body = "".join(parts)
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{classed(kind)}>{escape(text)}</p>"


def bullets(items: Iterable[str], kind: str = "") -> str:
    """A list of items that are HTML already; '' for none."""
    body = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul{classed(kind)}>{body}</ul>" if body else ""


def classed(kind: str) -> str:
    """The attribute of a class; '' for none."""
    return f' class="{kind}"' if kind else ""


def linked(text: str) -> str:
    """A text whose addresses can be followed."""
    return sub(_ADDRESS, lambda found: f'<a href="{found[0]}" rel="noreferrer">{found[0]}</a>', escape(text))


def setting(label: str, knobs: Mapping[str, str]) -> str:
    """A button that puts these knobs into the question."""
    return (
        f'<button type="button" class="setting" data-knobs="{escape(json.dumps(dict(knobs)))}">{escape(label)}</button>'
    )


def rule_button(code: str) -> str:
    """A button that unfolds what a rule says."""
    label = f"What rule {escape(code)} says"
    shown = f'aria-expanded="false" aria-label="{label}"'
    return f'<button type="button" class="code" data-rule="{escape(code)}" {shown}>{escape(code)}</button>'


def copied(name: str, what: str) -> str:
    """A button that copies the text of the element of that name."""
    return f'<button type="button" class="copy" data-copies="{name}">Copy {escape(what)}</button>'


def grid(caption: str, head: Iterable[str], rows: Iterable[tuple[str, ...]], marked: int = -1) -> str:
    """A table of cells that are HTML already, which scrolls by itself where the screen is narrow."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f"<tr{classed('marked' if number == marked else '')}>"
        + "".join(f'<th scope="row">{cell}</th>' if not place else f"<td>{cell}</td>" for place, cell in enumerate(row))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return (
        f'<div class="scrolled" role="region" aria-label="{escape(caption)}" tabindex="0"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
