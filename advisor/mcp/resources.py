"""What can be read besides the answers: knobs, rules, models, cards, the schema; and one prompt."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from advisor.answer import Advice
from advisor.catalog.listing import listed_gpus
from advisor.errors import UnknownName
from advisor.json_text import json_text
from advisor.knobs import KNOBS
from advisor.mcp.confined import Names
from advisor.rules import find_rule

SCHEME = "advisor://"
FIXED = {
    "knobs": "every argument, with its range and choices",
    "schema/v1": "JSON Schema of `advise --json`, which has everything that the tools shorten",
}
TEMPLATES = {
    "rules/{code}": "a rule: what it says, why, by whose figures",
    "models/{name}": "the sizes of a model, as read from its config.json",
    "gpus/{name}": "memory and rates of a card, with their sources",
}
PROMPT = "plan_finetuning"
PROMPT_ARGUMENTS = {"model": "the model to train", "gpu": "the card at hand", "goal": "what the model should learn"}


def read(uri: str) -> str:
    """The JSON text of a resource. Raises UnknownName for one that does not exist, and as the catalog does."""
    kind, _, name = uri.removeprefix(SCHEME).partition("/")
    name = unquote(name)
    if not uri.startswith(SCHEME):
        kind = ""
    if kind == "knobs" and not name:
        return json.dumps({knob.name: knob.explanation for knob in KNOBS}, separators=(",", ":"))
    if kind == "schema" and name == "v1":
        return json.dumps(Advice.model_json_schema(), separators=(",", ":"))
    if kind == "rules" and name:
        return json_text(find_rule(name).document)
    if kind == "models" and name:
        return Names().find_model(name).model_dump_json()
    if kind == "gpus" and name:
        return _card(name)
    known = [f"{SCHEME}{path}" for path in (*FIXED, *TEMPLATES)]
    raise UnknownName("resource", uri, known, f"known: {', '.join(known)}")


def _card(name: str) -> str:
    """One card; of a size, all that have it."""
    names = {card.name for card in Names().find_gpus(name)}
    documents = [row.document for row in listed_gpus() if row.item.name in names]
    return json_text(documents[0] if len(documents) == 1 else documents)


def prompt_text(given: dict[str, Any]) -> str:
    """The prompt, with what the person already said. Raises UnknownName for an argument that it does not have."""
    for name in given:
        if name not in PROMPT_ARGUMENTS:
            raise UnknownName("argument", name, PROMPT_ARGUMENTS, f"known: {', '.join(PROMPT_ARGUMENTS)}")
    said = "; ".join(f"{name}: {' '.join(str(value).split())[:400]}" for name, value in given.items() if value)
    return (
        f"Plan a fine-tuning job{f' ({said})' if said else ''}. Ask me for what is missing: which model, which card or "
        "how much memory, how many examples and how long the longest is, and whether quality, time or memory matters "
        "most. Then call advise_finetuning with what I said and nothing else, and tell me the method, whether it fits "
        "(tight is not sure), memory and time as ranges, and what was assumed. If nothing fits, offer what would. "
        "When I agree, call explain_estimate about the script and write it to a file."
    )
