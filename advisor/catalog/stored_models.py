"""A model of the catalog whose name says how its checkpoint stores the weights."""

from __future__ import annotations

from advisor.catalog import hub
from advisor.catalog.config_json import read_config
from advisor.catalog.models import ModelEntry, catalog_model, entry_by_hub_name, find_entry, hub_id_of
from advisor.catalog.storage import MIRRORS, read_ending, refused_mixture, with_experts
from advisor.errors import BadValue
from advisor.specs import ModelSpec

OTHERWISE_BUILT = ("unsloth/phi-3", "unsloth/phi-4")
"""How ids of mirrors begin whose models are not built as the original: Unsloth publishes Phi in Llama's form."""


def stored_model(label: str, entry: ModelEntry | None) -> ModelSpec | None:
    """The model that `label` names without its ending of storage, with its checkpoint; None where that is not known.

    `entry` is that of the whole name, where the catalog has it. Of a checkpoint whose name says too little, the
    config.json is read where the Hub's local cache has it. Raises BadValue for what nothing trains on.
    """
    stored = read_ending(label)
    if stored is None:
        return None if entry is None else catalog_model(entry.name)
    found, original = _base(stored.base)
    found = entry or found
    if stored.checkpoint is None:
        instead = f"take --model {original}" if original else "take the id of the model that it was made from"
        raise BadValue("--model", label, f"{stored.refusal}; {instead}")
    if found is None:
        return None
    m = catalog_model(found.name)
    if refusal := refused_mixture(stored.checkpoint, m):
        raise BadValue("--model", label, f"{refusal}{f', --model {original}' if original else ''}")
    checkpoint = with_experts(stored.checkpoint, m).model_copy(update={"original": original})
    if stored.checkpoint.growth > 1 and (cached := hub.cached_file(label, "config.json")) is not None:
        from advisor.catalog.quantization_config import checkpoint_of

        read = checkpoint_of(read_config(cached, f"{label} config.json"), m, f"{label} config.json")
        checkpoint = checkpoint if read is None else read.model_copy(update={"original": original})
    return m.model_copy(update={"checkpoint": checkpoint})


def _base(name: str) -> tuple[ModelEntry | None, str]:
    """The entry of a name without its ending, and the Hub id of that model in 16 bits; (None, '') where not known.

    In a mirror's id the part after the organization decides, if it is that of an official id.
    """
    entry = find_entry(name)
    if entry is not None:
        return entry, hub_id_of(name)
    owner, _, rest = name.rpartition("/")
    if owner.lower() not in MIRRORS or name.lower().startswith(OTHERWISE_BUILT):
        return None, ""
    return entry_by_hub_name(rest) or (None, "")


