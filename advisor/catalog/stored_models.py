"""Models of the catalog as the copy that a name means stores them."""

from __future__ import annotations

from advisor.catalog.config_json import read_config
from advisor.catalog.entries import Match
from advisor.catalog.matching import original_id
from advisor.catalog.storage import read_ending, refused_mixture, with_experts
from advisor.checkpoints import Checkpoint
from advisor.errors import BadValue
from advisor.specs import ModelSpec


def refuse(label: str, original: str = "") -> None:
    """Raise BadValue for a name that says that its checkpoint is one which nothing here trains on."""
    stored = read_ending(label)
    if stored is not None and stored.checkpoint is None:
        instead = f"take --model {original}" if original else "take the id of the model that it was made from"
        raise BadValue("--model", label, f"{stored.refusal}; {instead}")


def as_stored(m: ModelSpec, match: Match) -> ModelSpec:
    """The model with the checkpoint that its name says. Raises BadValue for what nothing trains on.

    Of a checkpoint whose name says too little, the config.json is read where the Hub's local cache has it.
    """
    original, stored = original_id(match), read_ending(match.text)
    refuse(match.text, original)
    if stored is None or stored.checkpoint is None:
        return m
    if refusal := refused_mixture(stored.checkpoint, m):
        raise BadValue("--model", match.text, f"{refusal}, --model {original}")
    checkpoint = with_experts(stored.checkpoint, m)
    if stored.checkpoint.growth > 1:
        checkpoint = _cached_checkpoint(match.text, m) or checkpoint
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
