"""What the tools do: arguments in, a short record and one sentence out. Needs no library of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from advisor import catalog
from advisor.advice.advise import advise
from advisor.advice.brief import Brief, brief
from advisor.answer import Advice
from advisor.catalog.config_json import model_from_config
from advisor.catalog.models import names_path
from advisor.errors import AdvisorError, BadValue, InputError, UnknownName, shown
from advisor.frozen import Frozen
from advisor.knobs import BY_NAME
from advisor.mcp.confined import Confined, Names
from advisor.mcp.definitions import ADVISE, EXPLAIN, FIND
from advisor.mcp.explained import ABOUT, explained, rule_part
from advisor.mcp.found import find
from advisor.rules import RULES
from advisor.specs import ModelSpec
from advisor.units import format_seconds

MOST_ERROR = 1_200
"""Characters of an error."""


class Answered(NamedTuple):
    """The answer as a record, and the sentence beside it."""

    text: str
    record: Frozen


def call(tool: str, arguments: Mapping[str, Any], files: Confined) -> Answered:
    """Call a tool by its name. Raises AdvisorError with the line that the agent should read."""
    if tool == ADVISE:
        short = brief(_advice(arguments, files))
        return Answered(_sentence(short), short)
    if tool == EXPLAIN:
        return _explain(dict(arguments), files)
    if tool == FIND:
        _only(arguments, ("query", "min_gib"))
        found = find(**arguments)
        return Answered(f"{len(found.models)} models, {len(found.gpus)} GPUs", found)
    raise UnknownName("tool", str(tool), (ADVISE, EXPLAIN, FIND))


def line_of(error: AdvisorError) -> str:
    """What the agent reads of an error: one printable line."""
    return shown(error, MOST_ERROR)


def _explain(arguments: dict[str, Any], files: Confined) -> Answered:
    """A part of an answer, or a rule by its code."""
    about, part = arguments.pop("about", None), arguments.pop("part", 1)
    word = about.strip().lower() if isinstance(about, str) else ""
    if isinstance(part, bool) or not isinstance(part, int):
        raise BadValue("part", part, "must be an integer from 1")
    if word.upper() in {rule.code for rule in RULES}:
        rule = rule_part(word)
        return Answered(rule.title, rule)
    if word not in ABOUT:
        raise UnknownName("part of an estimate", str(about), ABOUT, f"known: {', '.join(ABOUT)}, or a rule's code")
    found = explained(word, _advice(arguments, files), part)
    return Answered(f"{word} of the estimate", found)


def _advice(arguments: Mapping[str, Any], files: Confined) -> Advice:
    """The answer to the question that the arguments ask. Raises as `advise`, and InputError for paths."""
    knobs, config = _knobs(arguments)
    if knobs.get("gpu") is None:
        raise InputError("no gpu given, for example rtx4090, or a size such as 24GB")
    if config is not None:
        model: Any = _own_model(config, knobs.pop("model", None))
        knobs, is_file = files.allowed(knobs)
    elif knobs.get("model") is None:
        raise InputError("no model given: a name such as qwen3-8b, or the model's config.json as config")
    else:
        knobs, is_file = files.allowed(knobs)
        model = knobs.pop("model")
    known = catalog if is_file else Names(cards=files.folder is not None)
    return advise(model, knobs.pop("gpu"), catalog=known, **knobs)


def _own_model(config: object, name: object) -> ModelSpec:
    """The model that an inline config.json describes, by the name that was given for it."""
    if not isinstance(config, dict):
        raise BadValue("config", config, "must be the object that a config.json holds")
    if name is not None and (not isinstance(name, str) or names_path(name)):
        raise BadValue("model", name, "must be a name beside config, not a path")
    return model_from_config(config, shown(name or "config", 60), "config")


def _knobs(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], object]:
    """The knobs, those of `knobs` among them, and the inline config. Raises UnknownName, and InputError for two values.

    A knob may stand on either side: what is meant is clear.
    """
    given = {name: value for name, value in arguments.items() if name not in ("config", "knobs")}
    inner = arguments.get("knobs")
    if inner is not None and not isinstance(inner, dict):
        raise BadValue("knobs", inner, "must be an object of flags and values")
    found: dict[str, Any] = {}
    for name, value in (*given.items(), *(inner or {}).items()):
        knob = name.strip().lstrip("-").replace("-", "_")
        if knob not in BY_NAME:
            raise UnknownName("argument", name, (*BY_NAME, "config", "knobs"), "other flags of advise go into knobs")
        if knob in found and value is not None and found[knob] is not None:
            raise InputError(f"{knob} is given twice, as an argument and in knobs: leave one out")
        if value is not None or knob not in found:
            found[knob] = value
    return found, arguments.get("config")


def _only(arguments: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raises UnknownName for an argument that a tool does not have."""
    for name in arguments:
        if name not in known:
            raise UnknownName("argument", name, known, f"known: {', '.join(known)}")


def _sentence(short: Brief) -> str:
    """The verdict alone, for people who look on and for clients that show nothing else."""
    if short.recommended is None:
        return f"Nothing fits {short.cards} ({short.card_gib} GiB). {' '.join(short.would_fit[:1])}".strip()
    plan = next(one for one in short.plans if one.method == short.recommended)
    low, high = plan.needed_gib
    took = "" if plan.total_s is None else f"; {' to '.join(map(format_seconds, plan.total_s))}"
    return (
        f"{short.recommended} {plan.verdict.replace('_', ' ')} on {short.cards}: "
        f"{low} to {high} of {short.card_gib} GiB{took} [{short.rule}]"
    )
