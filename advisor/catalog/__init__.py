"""Names, aliases, Hub ids and files -> specs: the core's only door to disk and to the network."""

from __future__ import annotations

from advisor.catalog.entries import ModelEntry, model_entries, model_names
from advisor.catalog.gpus import all_gpus, cards_near, cards_with_at_least, find_gpus, gpu_aliases, gpu_names
from advisor.catalog.models import find_model, hub_id_of, remarks_on

__all__ = [
    "ModelEntry",
    "all_gpus",
    "cards_near",
    "cards_with_at_least",
    "find_gpus",
    "find_model",
    "gpu_aliases",
    "gpu_names",
    "hub_id_of",
    "model_entries",
    "model_names",
    "remarks_on",
]
