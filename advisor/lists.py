"""`advise models`, `gpus`, `rules`, `trainers`, `explain`, `schema`: what the advisor knows, for people and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from advisor.errors import UnknownName

if TYPE_CHECKING:
    from advisor.catalog.listing import Listed
    from advisor.catalog.trainers import Preset


def _chosen(kind: str, rows: Sequence[Listed], words: tuple[str, ...]) -> list[Listed]:
    """The rows that contain every word. Raises UnknownName when none does."""
    from advisor.catalog.listing import containing

    found = containing(rows, words)
    if found:
        return found
    known = [name for row in rows for name in row.names]
    raise UnknownName(kind, " ".join(words), known, f"`advise {kind.lower()}s` lists all")


def _print(
    kind: str, rows: Sequence[Listed], words: tuple[str, ...], as_json: bool, render: Callable[..., None]
) -> None:
    found = _chosen(kind, rows, words)
    if as_json:
        click.echo(json.dumps([row.document for row in found], indent=2))
    else:
        render([row.item for row in found], sys.stdout)


_json = click.option("--json", "as_json", is_flag=True, help="print JSON")
_filter = click.argument("words", nargs=-1, metavar="[FILTER]...")


@click.command()
@_filter
@_json
def models(words: tuple[str, ...], as_json: bool) -> None:
    """List the models of the catalog, or those that contain every word of FILTER.

    Ids of mirrors (unsloth/...), of stored copies (-GPTQ) and of variants (-Instruct) are understood, but not listed.
    """
    from advisor.catalog.listing import listed_models
    from advisor.render.answer import render_models

    _print("model", listed_models(), words, as_json, render_models)


@click.command()
@_filter
@_json
def gpus(words: tuple[str, ...], as_json: bool) -> None:
    """List the cards of the catalog, or those that contain every word of FILTER, such as: hopper, 24gb, mi300."""
    from advisor.catalog.listing import listed_gpus
    from advisor.render.answer import render_gpus

    _print("GPU", listed_gpus(), words, as_json, render_gpus)


@click.command()
@_filter
@_json
def rules(words: tuple[str, ...], as_json: bool) -> None:
    """List the rules in the order in which they are evaluated, or those that contain every word of FILTER."""
    from advisor.catalog.listing import Listed
    from advisor.render.answer import render_rules
    from advisor.rules import RULES

    rows = [Listed(rule, (rule.code,), f"{rule.kind} {rule.title}", rule.document) for rule in RULES]
    _print("rule", rows, words, as_json, render_rules)


def _complete_trainers(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    from advisor.knobs import TRAINERS

    return [name for name in TRAINERS if name.startswith(typed.lower())]


@click.command()
@click.argument("words", nargs=-1, metavar="[FILTER]...", shell_complete=_complete_trainers)
@_json
def trainers(words: tuple[str, ...], as_json: bool) -> None:
    """List the trainers that contain every word of FILTER; by its name, what one sets and where its code says so."""
    from advisor.catalog.listing import Listed
    from advisor.catalog.trainers import all_trainers, trainer_named
    from advisor.render.trainers import render_trainer, render_trainers

    presets = all_trainers()
    named = [preset for preset in presets if len(words) == 1 and preset.name == trainer_named(words[0])]
    rows = [
        Listed(preset, (preset.name,), preset.title, preset.model_dump(mode="json") if as_json else {})
        for preset in named or presets
    ]
    if named and not as_json:
        render_trainer(named[0], *_stack_of(named[0]), sys.stdout)
    else:
        _print("trainer", rows, words, as_json, render_trainers)


def _stack_of(preset: Preset) -> tuple[str, list[str]]:
    """Whose step is estimated for a trainer, and what that stands on for a Llama, by the methods that share it."""
    from advisor.catalog import find_model
    from advisor.recipes import build_recipe
    from advisor.specs import METHODS
    from advisor.stacks import named_stack

    model, stack = find_model("llama-3.1-8b"), named_stack(preset.stack)
    lines: dict[str, list[str]] = {}
    for method in METHODS:
        proof = stack.proof(model, build_recipe(method, {}, preset.on(1).values(method)))
        for kind, texts in zip(("traced", "read", "not known"), proof, strict=True):
            for text in texts:
                lines.setdefault(f"{kind}: {text}", []).append(method)
    return stack.name, [
        line if len(methods) == len(METHODS) else f"{line} ({', '.join(methods)})" for line, methods in lines.items()
    ]


def _complete_codes(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    from advisor.rules import RULES

    return [rule.code for rule in RULES if rule.code.startswith(typed.upper())]


@click.command()
@click.argument("code", shell_complete=_complete_codes)
def explain(code: str) -> None:
    """Explain the rule CODE, for example ADV003."""
    from advisor.render.answer import render_rule
    from advisor.rules import find_rule

    render_rule(find_rule(code), sys.stdout)


@click.command()
def schema() -> None:
    """Print the JSON Schema of the answer that --json prints."""
    from advisor.answer import Advice

    click.echo(json.dumps(Advice.model_json_schema(), indent=2))


COMMANDS = (models, gpus, rules, trainers, explain, schema)
