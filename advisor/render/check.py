"""A judged configuration file for people: the verdict, what was understood, and its changes as a diff."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from advisor.advice.phrases import checked_line
from advisor.render.console import console_for, heading, say

if TYPE_CHECKING:
    from advisor.advice.check import Checked, Edit

_MOST_WHY = 6
_MOST_EDITS = 3


def render_check(checked: Checked, file: TextIO, *, explain: bool = False) -> None:
    """Print the verdict in one sentence, why it is not known, what the keys became, and what would change it."""
    console = console_for(file)
    say(console, checked_line(checked), style="bold")
    shown = checked.why if explain else checked.why[:_MOST_WHY]
    for text in shown:
        say(console, f"- {text}", indent=2)
    if len(checked.why) > len(shown):
        say(console, f"- and {len(checked.why) - len(shown)} more", indent=2)
    for text in checked.not_known:
        say(console, f"- not known: {text}", indent=2)
    _understood(console, checked, explain)
    edits = checked.edits if explain else checked.edits[:_MOST_EDITS]
    if edits:
        short = checked.verdict == "does_not_fit"
        heading(console, "What would make it fit" if short else "What one change brings")
    for edit in edits:
        _edit(console, edit)
    if not explain and (len(checked.edits) > len(edits) or checked.idle):
        console.print()
        say(console, "--explain: every key and change.", style="dim")


def _understood(console: Console, checked: Checked, explain: bool) -> None:
    """What each key became; what the tool does by itself and what the file leaves open."""
    stated = [one for one in checked.uses if one.key]
    by_itself = list(dict.fromkeys(one.flags for one in checked.uses if not one.key))
    heading(console, "Read as")
    if explain:
        for one in stated:
            where = f"line {one.line}: " if one.line else ""
            say(console, f"{where}{one.key}: {one.value} -> {one.flags}", indent=2)
    else:
        say(console, " ".join(dict.fromkeys(one.flags for one in stated)), indent=2)
    if by_itself:
        say(console, f"by itself: {' '.join(by_itself)}", indent=2)
    if checked.given:
        say(console, f"flags, which win: {' '.join(checked.given)}", indent=2)
    for text in checked.assumed:
        say(console, f"assumed: {text}", indent=2)
    if explain and checked.idle:
        say(console, f"changes neither memory nor time: {', '.join(checked.idle)}", indent=2)


def _edit(console: Console, edit: Edit) -> None:
    say(console, f"- {edit.text}", indent=2)
    for line in edit.diff.splitlines()[2:]:
        style = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
        console.print(Text(f"    {line}", style=style), soft_wrap=True)
