"""The trainer presets for people: one line each, or every knob of one with its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TextIO

from rich.text import Text

from advisor.advice.phrases import value_text
from advisor.catalog.trainers import Cards, Preset
from advisor.render.console import console_for, heading, new_table, print_table, say
from advisor.specs import METHODS

_CARDS: Mapping[Cards, tuple[str, ...]] = {"": (), "one": ("on one card",), "several": ("on several cards",)}
"""On how many cards a row holds, where that is not any number."""


def render_trainers(presets: Iterable[Preset], file: TextIO) -> None:
    """A table of presets: name, version, whether its own step was traced, what it stands for."""
    table = new_table()
    for name in ("trainer", "version", "traced", "what it stands for"):
        table.add_column(name, overflow="fold")
    for preset in presets:
        table.add_row(preset.name, preset.version, "yes" if preset.traced else "no", Text(preset.title))
    print_table(file, table)


def render_trainer(preset: Preset, stack: str, proofs: Iterable[str], file: TextIO) -> None:
    """What one preset sets, where its code says so, and what the estimate leaves out.

    `stack` is whose code is estimated, `proofs` what that stands on, a line each.
    """
    console = console_for(file)
    say(console, f"{preset.name} {preset.version}: {preset.title}", style="bold")
    traced = (
        "yes, its own training step was run and compared with the estimate" if preset.traced else "no, not as a whole"
    )
    say(console, f"Traced: {traced}.")
    say(console, f"Estimated: the step of {stack}.")
    for line in proofs:
        say(console, f"- {line}", indent=2)
    heading(console, "Knobs")
    for knob in preset.knobs:
        only = [*_CARDS[knob.cards]] + ([f"loss {knob.loss}"] if knob.loss else []) + [*knob.models]
        only += [] if knob.methods == METHODS else [*knob.methods]
        where = f" ({', '.join(only)})" if only else ""
        say(console, f"{knob.name.replace('_', '-')} {value_text(knob.value)}{where}", indent=2)
        say(console, f"  {knob.source}", style="dim", indent=2)
    if preset.switches:
        heading(console, "Can be switched on")
    for switch in preset.switches:
        methods = "" if switch.methods == METHODS else f" ({', '.join(switch.methods)})"
        ignored = f": {preset.name} goes on without it, {switch.ignored}" if switch.ignored else ""
        values = "" if switch.values == ("on",) else f" {', '.join(switch.values)}"
        say(console, f"{switch.name.replace('_', '-')}{values}{methods}{ignored}", indent=2)
        say(console, f"  {switch.source}", style="dim", indent=2)
    if preset.lacks:
        heading(console, "Does not have")
    for lack in preset.lacks:
        where = "".join(f" ({text})" for text in _CARDS[lack.cards])
        names = (*lack.methods, *(name.replace("_", "-") for name in lack.knobs))
        say(console, ", ".join(names) + where, indent=2)
        say(console, f"  {lack.source}", style="dim", indent=2)
    if preset.differs:
        heading(console, "Not in the estimate")
        for line in preset.differs:
            say(console, f"- {line}", indent=2)
