"""A question of the page answered: the bytes of `advise --json`, and everything that is shown of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from advisor.advice.advise import begin
from advisor.advice.begun import Begun, completed
from advisor.advice.sentence import verdict_line
from advisor.answer import Advice
from advisor.errors import BadConfig, InputError, UnknownName
from advisor.export import TARGETS
from advisor.page.flags import command_of
from advisor.page.markup import bullets, linked
from advisor.page.names import Names
from advisor.page.sections import first_sections, sections_below, state_of
from advisor.page.sheet import hints_of
from advisor.page.trust import published, trust_html
from advisor.specs import ModelSpec

Values = Mapping[str, str | bool]
_KEPT = 8
"""Answers: a person goes back and forth, and asks for the file of an answer that is shown."""
OWN_MODEL = "config.json"
"""What a dropped config.json is called in the command, which expects it in the current folder."""


def advised(values: Values, config: str = "", whole: bool = True) -> dict[str, Any]:
    """What a page shows of the answer; `config` is the text of a config.json that is asked for in a model's place.

    Without `whole` it comes without what `below` has, which a page asks for next, and without the bytes of
    `advise --json`, which it needs only to save them.

    Raises AdvisorError, as `advise` does, and InputError where the question names no model or card.
    """
    advice = _begun(tuple(values.items()), config).advice
    parts = first_sections(advice)
    first = {
        "verdict": verdict_line(advice),
        "state": state_of(advice),
        "parts": parts,
        "command": command_of(_with_own(values, config)),
        "targets": list(TARGETS),
    }
    if not whole:
        return first
    advice = answer_of(values, config)
    rest = _rest(advice)
    return {**first, **rest, "parts": {**parts, **rest["parts"]}, "json": advice.model_dump_json(indent=2)}


def below(values: Values, config: str) -> dict[str, Any]:
    """The parts of an answer that stand below what is seen first, and what each knob is. Raises as `advised`."""
    return _rest(answer_of(values, config))


def _rest(advice: Advice) -> dict[str, Any]:
    return {"parts": sections_below(advice), "hints": hints_of(advice)}


def answer_of(values: Values, config: str = "") -> Advice:
    """The answer itself. Raises as `advised`."""
    return _answer(tuple(values.items()), config)


@lru_cache(maxsize=_KEPT)
def _answer(items: tuple[tuple[str, str | bool], ...], config: str) -> Advice:
    return completed(_begun(items, config))


@lru_cache(maxsize=_KEPT)
def _begun(items: tuple[tuple[str, str | bool], ...], config: str) -> Begun:
    knobs: dict[str, Any] = dict(items)
    model, gpu = str(knobs.pop("model", "")), str(knobs.pop("gpu", ""))
    if not (model or config):
        raise InputError("no --model given, for example llama-8b; or drop a model's config.json")
    if not gpu:
        raise InputError("no --gpu given, for example 24GB or rtx4090")
    return begin(own_model(config) if config else model, gpu, catalog=Names(), **knobs)


def own_model(text: str) -> ModelSpec:
    """The model of a config.json. Raises BadConfig for a text that is none, UnsupportedArchitecture."""
    from advisor.catalog.config_json import model_from_config

    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadConfig(f"{OWN_MODEL}: not a JSON object; drop the config.json of a model")
    named = str(found.get("_name_or_path") or "").rpartition("/")[2]
    return model_from_config(found, named if named.isprintable() and 0 < len(named) <= 80 else "your model", OWN_MODEL)


def _with_own(values: Values, config: str) -> Values:
    return {**values, "model": f"./{OWN_MODEL}"} if config else values


def written(values: Values, config: str, target: str) -> dict[str, Any]:
    """The file that runs the recommended plan, as `--write TARGET` writes it.

    Raises UnknownName for a target that does not exist, InputError where nothing fits or the trainer cannot run it.
    """
    if target not in TARGETS:
        raise UnknownName("file to write", target, TARGETS, f"known: {', '.join(TARGETS)}")
    advice = answer_of(values, config)
    if advice.recommendation is None:
        raise InputError("nothing fits, so there is no file to run")
    from advisor.export.training_file import training_file

    found = training_file(advice, advice.candidate(advice.recommendation.method), target)
    files = [{"name": name, "text": text} for name, text in ((found.name, found.text), *found.beside)]
    return {"files": files, "run": found.command, "machines": found.machines}


def trusted(values: Values, config: str) -> dict[str, Any]:
    """Published figures beside ours, the nearest to the question first. Raises as `advised`."""
    return {"html": trust_html(answer_of(values, config), published())}


def explained(code: str) -> dict[str, Any]:
    """A rule: its title, what it says and where that comes from. Raises UnknownName."""
    from advisor.rules import find_rule

    rule = find_rule(code)
    _, _, body = rule.explanation.strip().partition("\n\n")
    paragraphs = [" ".join(one.split()) for one in body.split("\n\n") if one.strip()]
    return {
        "title": f"{rule.code}: {rule.title}",
        "html": bullets(map(linked, (*paragraphs, *(f"Source: {one}" for one in rule.sources)))),
    }
