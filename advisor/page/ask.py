"""The door: `ask`, a question as JSON in, its answer as JSON out; what is wrong with one is part of the answer.

    {"kind": "advise", "flags": {"model": "llama-8b", "gpu": "24GB", "rank": "16"}, "config": "..."}
    -> {"ok": true, "json": "...", "parts": {...}, "command": "advise --model llama-8b ...", ...}
    -> {"ok": false, "error": "unknown GPU '25GBx'; ...", "field": "gpu", "near": [...]}

Flags are texts by the names of the knobs, as a link holds them: no file and no machine is looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from advisor.errors import AdvisorError, BadValue, UnknownName
from advisor.knobs import BY_NAME, read_value
from advisor.page.answered import advised, below, explained, trusted, written
from advisor.page.dropped import counted
from advisor.page.flags import values_of
from advisor.page.names import Names, offered_cards, offered_models

Asked = Mapping[str, Any]
MOST_CHARACTERS = 8_000_000
"""Of a question; a configuration file is far shorter."""
_FLAG = re.compile(r"--(?:no-)?([a-z][a-z-]+)")


def ask(question_json: str) -> str:
    """The answer to a question of one of KINDS. Raises nothing: `ok` says whether it could be answered."""
    asked: object = None
    try:
        asked = _read(question_json)
        answer = {"ok": True, **KINDS[asked["kind"]](asked)}
    except AdvisorError as error:
        answer = {"ok": False, "error": str(error), "field": _field(error, asked), "near": list(_near(error))}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def _read(question_json: str) -> Asked:
    """Raises BadValue for what is no question."""
    try:
        asked = json.loads(question_json) if len(question_json) <= MOST_CHARACTERS else None
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise BadValue("question", question_json[:80], f"must be a JSON object of at most {MOST_CHARACTERS:,} letters")
    kind = asked.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UnknownName("kind of question", str(kind), KINDS, f"known: {', '.join(KINDS)}")
    return asked


def _text(asked: Asked, name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str):
        raise BadValue(name, value, "must be text")
    return value


def _models(asked: Asked) -> dict[str, Any]:
    return {"offers": offered_models(_text(asked, "query"))}


def _cards(asked: Asked) -> dict[str, Any]:
    return {"offers": offered_cards(_text(asked, "query"))}


def _advise(asked: Asked) -> dict[str, Any]:
    return advised(values_of(asked.get("flags", {})), _text(asked, "config"), asked.get("whole") is not False)


def _below(asked: Asked) -> dict[str, Any]:
    return below(values_of(asked.get("flags", {})), _text(asked, "config"))


def _file(asked: Asked) -> dict[str, Any]:
    return written(values_of(asked.get("flags", {})), _text(asked, "config"), _text(asked, "target"))


def _trust(asked: Asked) -> dict[str, Any]:
    return trusted(values_of(asked.get("flags", {})), _text(asked, "config"))


def _check(asked: Asked) -> dict[str, Any]:
    from advisor.page.judged import checked

    return checked(values_of(asked.get("flags", {})), _text(asked, "name"), _text(asked, "text"))


def _data(asked: Asked) -> dict[str, Any]:
    return counted(values_of(asked.get("flags", {})), _text(asked, "name"))


def _explain(asked: Asked) -> dict[str, Any]:
    return explained(_text(asked, "code"))


KINDS: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "advise": _advise,
    "below": _below,
    "file": _file,
    "trust": _trust,
    "check": _check,
    "data": _data,
    "models": _models,
    "gpus": _cards,
    "explain": _explain,
}
"""What can be asked, by name."""


def _field(error: AdvisorError, asked: object) -> str:
    """The knob whose text is wrong; '' where it is none, or where several contradict each other."""
    flags = asked.get("flags") if isinstance(asked, dict) else None
    if not isinstance(flags, dict) or not isinstance(asked, dict) or asked.get("kind") not in ("advise", "file"):
        return ""
    for name, value in flags.items():
        knob = BY_NAME.get(name)
        if knob is None or knob.kind == "bool" or not isinstance(value, str) or not value.strip():
            continue
        if _refused(lambda knob=knob, value=value: read_value(knob.name, value.strip())):  # type: ignore[misc]
            return str(name)
    names, model, card = Names(), str(flags.get("model", "")), str(flags.get("gpu", ""))
    if not asked.get("config") and _refused(lambda: names.find_model(model)):
        return "model"
    if str(error) == _refused(lambda: names.find_gpus(card)):
        return "gpu"
    named = (match.replace("-", "_") for match in _FLAG.findall(str(error)))
    return next((name for name in named if name in BY_NAME), "")


def _refused(read: Callable[[], object]) -> str:
    try:
        read()
    except AdvisorError as error:
        return str(error)
    return ""


def _near(error: AdvisorError) -> tuple[str, ...]:
    return tuple(getattr(error, "near", ()))
