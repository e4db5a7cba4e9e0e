"""Models by name, by file or from the Hub: what `--model` was given, as a ModelSpec.

A name that the catalog lists wins over a folder of that name, a folder or file over what a name may be read as
(`matching`), and a derivative's own config.json over that of the model which it is named after. Without `files` no
text is a path: what a stranger typed neither opens a file of this machine nor tells whether there is one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.catalog.config_json import model_from_config, read_config
from advisor.catalog.data import data_text
from advisor.catalog.entries import Match, by_label, listed, model_entries
from advisor.errors import AmbiguousName, BadConfig, InputError, SourceUnavailable, UnknownName, expect, shown
from advisor.specs import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

_HINT = "`advise models` lists them; or give a Hub id or a path to a config.json"
_BF16 = "-bf16"
"""How the id of a copy in 16 bits ends, where a model is published in fewer."""
_BEFORE_IDS = ("https://huggingface.co/", "https://hf.co/", "huggingface.co/", "hf.co/", "hf://")
"""What browsers and other programs put before a Hub id."""


class Source(NamedTuple):
    """The config.json of a model, and where it was found."""

    config: Mapping[str, object]
    name: str
    place: str
    path: Path | None = None
    """It is this file of the user's."""
    match: Match | None = None
    """It is the catalog's: how the name was read."""


def find_model(text: str, *, offline: bool = False, files: bool = True) -> ModelSpec:
    """The model that `text` names: catalog name, alias or Hub id; path of a config.json or its folder; Hub id.

    Capitals do not matter in names. With `offline` the Hub is not asked beyond its local cache; without `files` no
    path is read.
    Raises UnknownName, AmbiguousName, BadConfig, UnsupportedArchitecture or SourceUnavailable.
    """
    expect("model", text, str)
    source = find_source(text, offline=offline, files=files)
    if source.match is None:
        return model_from_config(source.config, source.name, source.place)
    found = _catalog_model(source.name, _variant(source.match))
    if source.match.derivative:
        from advisor.catalog.remarks import unread

        found = found.model_copy(update={"unread": unread(source.match)})
    if source.match.storage:
        from advisor.catalog.stored_models import as_stored

        return as_stored(found, source.match)
    if found.checkpoint is None:
        return found
    if source.match.text.lower().endswith(_BF16):
        return found.model_copy(update={"checkpoint": None})
    original = next((label for label in source.match.entry.ids if label.lower().endswith(_BF16)), "")
    return found.model_copy(update={"checkpoint": found.checkpoint.model_copy(update={"original": original})})


def find_source(text: str, *, offline: bool = False, files: bool = True) -> Source:
    """The config.json of the model that `text` names, of whatever architecture. Raises as `find_model`."""
    label = _label(text)
    match = listed(label)
    if match is not None:
        return _of_catalog(match)
    if not files:
        return _by_name(label, offline)
    path = _config_path(label)
    if path is not None:
        return Source(read_config(path), _name_of(path), shown(path), path)
    base = adapter_base(label)
    if base:
        if adapter_base(base):
            raise BadConfig(f"{shown(label)}: its base {shown(base)} is an adapter too; give the model under both")
        return find_source(base, offline=offline)
    if _looks_like_path(label) and os.path.isdir(os.path.expanduser(label)):  # it is read, not guessed from its name
        raise BadConfig(f"{shown(os.path.join(label, 'config.json'))}: no such file")
    return _by_name(label, offline)


def _label(text: str) -> str:
    """What was typed, of an address on the Hub the id."""
    label = text.strip()
    prefix = next((one for one in _BEFORE_IDS if label.lower().startswith(one)), "")
    return "/".join(label[len(prefix) :].split("/")[:2]) if prefix else label


def _by_name(label: str, offline: bool) -> Source:
    """The source of a name that is neither listed nor a file: by the rules for names, or from the Hub."""
    match, unclear = None, None
    if not label.lower().endswith(".json"):
        try:
            match = _matched(label)
        except AmbiguousName as error:
            unclear = error
    if match is not None and not (match.foreign or match.derivative):
        return _of_catalog(match)
    from advisor.catalog import hub
    from advisor.catalog.stored_models import refuse

    if match is None and unclear is None:
        refuse(label)
    if hub.is_hub_id(label):
        try:
            return Source(hub.fetch_config(label, offline=offline), label, label)
        except SourceUnavailable as error:
            if match is None and unclear is None:
                raise _with_kin(error, label) from None
    if match is not None:
        return _of_catalog(match)
    raise unclear or _unknown(label)


def _unknown(label: str) -> UnknownName | BadConfig:
    """What to say of a text that means no model: a file that is not there, or a wrong name."""
    if _looks_like_path(label):
        return BadConfig(f"{shown(label)}: no such file")
    return UnknownName("model", label, by_label(), _HINT, _kin(label))


def _with_kin(error: SourceUnavailable, label: str) -> SourceUnavailable:
    kin = _kin(label)
    return SourceUnavailable(f"{error}; of that lineage: {', '.join(kin)}") if kin else error


def _kin(label: str) -> tuple[str, ...]:
    from advisor.catalog.lineage import nearest_kin

    return nearest_kin(label.rpartition("/")[2], {entry.name: entry.parameters for entry in model_entries()})


def hub_id_of(name: str, *, files: bool = True) -> str:
    """What a script loads for the model that a user called `name`.

    A Hub id or a path stays the one that was asked for (an -Instruct variant is not replaced by its base model); a
    short name gives the id that it spells, or the catalog's; what the catalog does not know is returned unchanged.
    """
    label = _label(name)
    match, base = _match_of(label, files)
    if match is None:
        return base or label
    if match.bare and match.base == label.lower():
        spelled = label.lower().replace(":", "-")
        return next(
            (one for one in match.entry.ids if one.lower().rpartition("/")[2].startswith(spelled)), match.entry.hub_id
        )
    if label.lower() == match.entry.name:
        return match.entry.hub_id
    from advisor.catalog.matching import spelled_id

    return spelled_id(match)


def remarks_on(text: str, model: str, *, files: bool = True) -> tuple[str, ...]:
    """What to say about how `text` was read, when the answer is about the `model` of that name."""
    label = _label(text)
    match, base = _match_of(label, files)
    if base:
        return (f"{shown(label)} holds an adapter: answered for its base {shown(base)}.",)
    if match is None or match.entry.name != model.partition(" (")[0]:
        return ()
    from advisor.catalog.remarks import remarks

    return remarks(match, _file(match.entry.name).get("kin", {}))


def _match_of(label: str, files: bool) -> tuple[Match | None, str]:
    """The model of the catalog that a text means, if it is no file; of an adapter's folder, its base."""
    try:
        match = listed(label)
        if match is not None:
            return match, ""
        base = adapter_base(label) if files else ""
        if base or (files and _config_path(label) is not None):
            return None, base
        return _matched(label), ""
    except InputError:
        return None, ""


def _matched(label: str) -> Match | None:
    """The model of the catalog that a name means, or that it was made from. Raises AmbiguousName."""
    from advisor.catalog.matching import matched

    found = matched(label)
    if found is None:
        from advisor.catalog.derivatives import derivative

        found = derivative(label)
    return found


def _of_catalog(match: Match) -> Source:
    name = match.entry.name
    return Source(_config(name, _variant(match)), name, f"profiles/models/{name}.json", match=match)


def _variant(match: Match) -> str:
    """The listed checkpoint, in lower case, whose config.json differs from the entry's in some field; or ''."""
    variants = _file(match.entry.name).get("variants", {})
    if not variants:
        return ""
    from advisor.catalog.matching import spelled_id

    typed, base = spelled_id(match).lower(), match.base
    return next((own.lower() for own in variants if own.lower() == typed or own.lower().rpartition("/")[2] == base), "")


def _config(name: str, variant: str) -> dict[str, object]:
    """The catalog's config of a model, with the fields in which the variant differs."""
    data = _file(name)
    own: dict[str, Any] = {key.lower(): fields["config"] for key, fields in data.get("variants", {}).items()}
    return {**data["config"], **own.get(variant, {})}


@cache
def _catalog_model(name: str, variant: str) -> ModelSpec:
    return model_from_config(_config(name, variant), name, f"profiles/models/{name}.json")


@cache
def _file(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(data_text("models", f"{name}.json"))
    return data


def adapter_base(text: str) -> str:
    """The base model that an adapter's folder names in its adapter_config.json, or ''. Raises BadConfig."""
    file = os.path.join(os.path.expanduser(text), "adapter_config.json") if text else ""
    if not file or "\0" in file or not os.path.isfile(file):
        return ""
    from pathlib import Path

    base = read_config(Path(file)).get("base_model_name_or_path")
    return base.strip() if isinstance(base, str) and base.strip() != text else ""


def names_path(text: str) -> bool:
    """Whether `text` can only be meant as a path: no name, Hub id or address on the Hub looks like it."""
    label = _label(text)
    return _looks_like_path(label) or label.count("/") > 1 or "\\" in label


def _looks_like_path(text: str) -> bool:
    separators = tuple(s for s in (os.sep, os.altsep) if s)
    return text.startswith((*separators, ".", "~")) or text.lower().endswith(".json")


def _config_path(text: str) -> Path | None:
    """The config.json that `text` points at; None where there is none."""
    try:
        path = os.path.expanduser(text)
        path = os.path.join(path, "config.json") if os.path.isdir(path) else path
        if not text or not os.path.exists(path):
            return None
    except (OSError, ValueError, RuntimeError):
        return None
    from pathlib import Path

    return Path(path)


def _name_of(path: Path) -> str:
    """A model in a file is named after its folder, or after the file if that is not called config.json."""
    folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return shown(folder or "model", 60) if path.name == "config.json" else shown(path.stem, 60)
