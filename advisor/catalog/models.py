"""Models by name, by file or from the Hub: what `--model` was given, as a ModelSpec.

Each model is a file profiles/models/<name>.json; profiles/models/index.json repeats their names, Hub ids, aliases
and parameter counts so that a look-up opens two files instead of a hundred. It is generated: after a change run
`python -m advisor.catalog.index` (a test compares).

A bare size class ("llama-70b", "qwen-7b") is an alias of the newest model of that size in the catalog.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.catalog.config_json import model_from_config, read_config
from advisor.catalog.data import data_folder, data_text
from advisor.errors import BadConfig, BadValue, UnknownName, expect, shown
from advisor.specs import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from advisor.checkpoints import Checkpoint

_STORAGE_WORDS = (
    *("bnb", "gptq", "awq", "hqq", "fp8", "fp4", "aqlm", "gguf", "mlx", "bit", "int4", "int8", "qat", "w4a", "w8a"),
    *(f"q{bits}_" for bits in (2, 3, 4, 5, 6, 8)),
)
"""One of them is in every ending of storage (advisor.catalog.storage, which is loaded for such names only)."""
_BF16 = "-bf16"
"""How the id of a copy in 16 bits ends, where a model is published in fewer."""
_HINT = "`advise models` lists them; or give a Hub id or a path to a config.json"


class ModelEntry(NamedTuple):
    """One line of the catalog. `parameters` is the published count, tied embeddings counted once."""

    name: str
    hub_id: str
    aliases: tuple[str, ...]
    parameters: int


def model_folder() -> Path:
    """Where the catalog's files are."""
    return data_folder("models")


@cache
def model_entries() -> tuple[ModelEntry, ...]:
    """All models of the catalog, by name."""
    rows = json.loads(data_text("models", "index.json"))
    return tuple(ModelEntry(r["name"], r["hub_id"], tuple(r["aliases"]), r["parameters"]) for r in rows)


def model_names() -> tuple[str, ...]:
    """Canonical names of all models of the catalog."""
    return tuple(entry.name for entry in model_entries())


def find_entry(text: str) -> ModelEntry | None:
    """The model that a name, a Hub id or an alias means in the catalog; capitals do not matter."""
    return _by_label().get(text.strip().lower())


def hub_id_of(name: str) -> str:
    """The Hub id to put into a script for the model that a user called `name`.

    A Hub id stays the one that was asked for (an -Instruct variant is not replaced by its base model);
    a short name gives the catalog's; anything that the catalog does not know is returned unchanged.
    """
    label = name.strip()
    entry = _by_label().get(label.lower())
    if entry is None:
        return label
    return next((a for a in (entry.hub_id, *entry.aliases) if "/" in a and a.lower() == label.lower()), entry.hub_id)


def find_model(text: str, *, offline: bool = False) -> ModelSpec:
    """The model that `text` names: catalog name, alias or Hub id; path of a config.json or its folder; Hub id.

    Capitals do not matter in names. With `offline` the Hub is not asked beyond its local cache.
    Raises UnknownName, BadConfig, UnsupportedArchitecture or SourceUnavailable.
    """
    expect("model", text, str)
    label, entry = text.strip(), find_entry(text)
    says_storage = any(word in label.lower() for word in _STORAGE_WORDS)
    if entry is not None and not says_storage:
        found = _catalog_model(entry.name)
        whole = found.checkpoint is not None and label.lower().endswith(_BF16)
        return found.model_copy(update={"checkpoint": None}) if whole else found
    path = _config_path(label)
    if path is not None:
        return model_from_config(read_config(path), _name_of(path), shown(path))
    if says_storage and (stored := _stored_model(label, entry)) is not None:
        return stored
    from advisor.catalog import hub

    if hub.is_hub_id(label):
        return model_from_config(hub.fetch_config(label, offline=offline), label, label)
    raise UnknownName("model", label, _by_label(), _HINT)


def config_source(text: str) -> tuple[Path | None, Mapping[str, object], str]:
    """(path or None for a Hub id, config.json, name) of a model outside of the catalog. Raises as `find_model`."""
    label = text.strip()
    path = _config_path(label)
    if path is not None:
        return path, read_config(path), _name_of(path)
    from advisor.catalog import hub

    if hub.is_hub_id(label):
        return None, hub.fetch_config(label), label
    raise UnknownName("model", label, _by_label(), _HINT)


@cache
def _by_label() -> dict[str, ModelEntry]:
    """Every entry under its name, Hub id and aliases, in lower case."""
    return {label.lower(): entry for entry in model_entries() for label in (entry.name, entry.hub_id, *entry.aliases)}


def _stored_model(label: str, entry: ModelEntry | None) -> ModelSpec | None:
    """The model that `label` names without its ending of storage, with its checkpoint; None where that is not known.

    `entry` is that of the whole name, where the catalog has it. Of a checkpoint whose name says too little, the
    config.json is read where the Hub's local cache has it. Raises BadValue for what nothing trains on.
    """
    from advisor.catalog.storage import read_ending, refused_mixture, with_experts

    stored = read_ending(label)
    if stored is None:
        return None if entry is None else _catalog_model(entry.name)
    found, original = _without_ending(stored.base)
    found = entry or found
    if stored.checkpoint is None:
        instead = f"take --model {original}" if original else "take the id of the model that it was made from"
        raise BadValue("--model", label, f"{stored.refusal}; {instead}")
    if found is None:
        return None
    m = _catalog_model(found.name)
    if refusal := refused_mixture(stored.checkpoint, m):
        raise BadValue("--model", label, f"{refusal}{f', --model {original}' if original else ''}")
    checkpoint = with_experts(stored.checkpoint, m)
    if stored.checkpoint.growth > 1:
        checkpoint = _cached_checkpoint(label, m) or checkpoint
    return m.model_copy(update={"checkpoint": checkpoint.model_copy(update={"original": original})})


def _cached_checkpoint(hub_id: str, m: ModelSpec) -> Checkpoint | None:
    """What the config.json of `hub_id` says of its storage, if the Hub's local cache has it."""
    from advisor.catalog import hub

    cached = hub.cached_file(hub_id, "config.json")
    if cached is None:
        return None
    from advisor.catalog.quantization_config import checkpoint_of

    origin = f"{hub_id} config.json"
    config = read_config(cached, origin)
    return checkpoint_of(config, m, origin) if config.get("quantization_config") is not None else None


def _without_ending(name: str) -> tuple[ModelEntry | None, str]:
    """The entry of a name without its ending, and the Hub id of that model in 16 bits; (None, '') where not known.

    In a mirror's id the part after the organization decides, if it is that of one entry's ids.
    """
    entry = find_entry(name)
    if entry is not None:
        return entry, hub_id_of(name)
    from advisor.catalog.storage import MIRRORS, OTHERWISE_BUILT

    owner, _, rest = name.rpartition("/")
    if owner.lower() not in MIRRORS or name.lower().startswith(OTHERWISE_BUILT):
        return None, ""
    ending = f"/{rest.lower()}"
    ids = [(one, label) for one in model_entries() for label in (one.hub_id, *one.aliases)]
    found = {one.name: (one, label) for one, label in reversed(ids) if label.lower().endswith(ending)}
    return next(iter(found.values())) if len(found) == 1 else (None, "")


@cache
def _catalog_model(name: str) -> ModelSpec:
    data: dict[str, Any] = json.loads(data_text("models", f"{name}.json"))
    found = model_from_config(data["config"], name, f"profiles/models/{name}.json")
    if found.checkpoint is None:
        return found
    original = next((label for label in data["aliases"] if label.lower().endswith(_BF16)), "")
    return found.model_copy(update={"checkpoint": found.checkpoint.model_copy(update={"original": original})})


def _config_path(text: str) -> Path | None:
    """The config.json that `text` points at; None when `text` neither exists nor looks like a path.

    Raises BadConfig for something that looks like a path and does not exist.
    """
    if not text:
        return None
    from pathlib import Path

    separators = tuple(s for s in (os.sep, os.altsep) if s)
    looks_like_path = text.startswith((*separators, ".", "~")) or text.lower().endswith(".json")
    try:
        path = Path(text).expanduser()
        exists = path.exists()
        if path.is_dir():
            path = path / "config.json"
            if not path.exists() and not looks_like_path:
                return None
    except (OSError, ValueError, RuntimeError):
        exists = False
    if exists:
        return path
    if looks_like_path:
        raise BadConfig(f"{shown(text)}: no such file")
    return None


def _name_of(path: Path) -> str:
    """A model in a file is named after its folder, or after the file if that is not called config.json."""
    folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return shown(folder or "model", 60) if path.name == "config.json" else shown(path.stem, 60)
