"""The flags of the knobs, for every command that takes some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from advisor.knobs import BY_NAME, KNOBS


def _complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """What the shell offers after a knob's flag; the catalog is read only when a shell asks."""
    knob = BY_NAME[parameter.name or ""]
    known: list[str] = list(knob.choices)
    if knob.name == "model":
        from advisor.catalog import model_entries

        known = list(dict.fromkeys(label for entry in model_entries() for label in entry.labels))
    elif knob.name == "gpu":
        from advisor.catalog import gpu_aliases

        known = ["auto", *gpu_aliases()]
    elif knob.name == "target_modules":
        known = ["all-linear", "attention"]
    return [label for label in known if label.lower().startswith(typed.lower())]


def knob_options(*names: str, repeated: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """One option for each of these knobs, or for each of the table; the library reads and checks the texts.

    Those of `repeated` can be given several times.
    """

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for knob in reversed([BY_NAME[name] for name in names] or KNOBS):
            again = knob.name in repeated
            command = click.option(
                knob.option,
                knob.name,
                default=None,
                multiple=again,
                metavar=knob.metavar or None,
                help=knob.explanation + ("; can be repeated" if again else ""),
                shell_complete=_complete,
            )(command)
        return command

    return decorated
